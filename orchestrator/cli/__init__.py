"""Command line interface: each command parses its options, calls the facade and prints.

Commands import what they need when they are called, so that ``--help`` does not wait for the
import of a database driver or an HTTP client.
"""
