"""A recording of what the command line does, to compare another state of the source with.

`scenarios.py` says what is done, `recorded.json` what came of it. Nothing here imports the program:
commands and the simulator run as processes, so the same code runs against any source tree.
"""
