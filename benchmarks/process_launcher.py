"""``python -m benchmarks.launch COMMAND …``: runs it, and prints what it took.

On Linux a process inherits the peak of the memory of whoever started it; so it is this small one.
"""

import json
import os
import sys
import time


def main(command: list[str]) -> None:
    """Prints seconds, the peak of resident memory as the system counts it, and the exit code."""
    nothing = os.open(os.devnull, os.O_RDWR)
    into_nothing = [(os.POSIX_SPAWN_DUP2, nothing, number) for number in (0, 1, 2)]
    began = time.monotonic()
    number = os.posix_spawn(command[0], command, os.environ, file_actions=into_nothing)
    _, status, used = os.wait4(number, 0)
    seconds = time.monotonic() - began
    print(json.dumps([seconds, used.ru_maxrss, os.waitstatus_to_exitcode(status)]))


if __name__ == "__main__":
    main(sys.argv[1:])
