"""A process that has imported everything and forks a child for each job: starting one is fast.

It reads one line for each child from standard input, and writes the child's process id and then
its exit code.
"""

import os
import pickle
import random
import sys
import traceback

import anyio

from tests.crash.worker_process import WorkerSpec, run_worker


def main() -> None:
    """Fork children until standard input ends."""
    for line in sys.stdin:
        spec: WorkerSpec = pickle.loads(bytes.fromhex(line))  # noqa: S301 - written by our own parent
        child = os.fork()
        if child == 0:
            _run_child(spec)
        _answer(child)
        _, status = os.waitpid(child, 0)
        _answer(os.waitstatus_to_exitcode(status))


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _run_child(spec: WorkerSpec) -> None:
    """Run the child; never return."""
    ended_well = False
    try:
        random.seed()
        log = os.open(spec.folder / "children.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        anyio.run(run_worker, spec)
        ended_well = True
    except BaseException:  # noqa: BLE001 - a child must never return to the fork server's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0 if ended_well else 1)


if __name__ == "__main__":
    main()
