"""The command line: parse, call, print.

The commands import what they work with when they are called, so that ``--help`` does not wait
for a database driver.
"""
