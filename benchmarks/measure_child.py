"""``python -m benchmarks.measure_child COMMAND …``: run a command and print what it used.

On Linux a process inherits the peak memory of its parent, so the parent must be a small process.
"""

import json
import os
import sys
import time


def main(command: list[str]) -> None:
    """Print seconds, peak resident memory in the system's unit, and the exit code."""
    nothing = os.open(os.devnull, os.O_RDWR)
    into_nothing = [(os.POSIX_SPAWN_DUP2, nothing, number) for number in (0, 1, 2)]
    began = time.monotonic()
    number = os.posix_spawn(command[0], command, os.environ, file_actions=into_nothing)
    _, status, used = os.wait4(number, 0)
    seconds = time.monotonic() - began
    print(json.dumps([seconds, used.ru_maxrss, os.waitstatus_to_exitcode(status)]))


if __name__ == "__main__":
    main(sys.argv[1:])
