"""A process that has imported everything and forks a child for each life: real ones, in no time.

Reads a line for each life from its standard input, answers with the child's number, and with
how the child ended.
"""

import os
import pickle
import random
import sys
import traceback

import anyio

from tests.crash.worker_process import WorkerSpec, run_worker


def main() -> None:
    """Serves until its input ends."""
    for line in sys.stdin:
        life: WorkerSpec = pickle.loads(bytes.fromhex(line))  # noqa: S301 - written by our own parent
        child = os.fork()
        if child == 0:
            _be(life)
        _answer(child)
        _, status = os.waitpid(child, 0)
        _answer(os.waitstatus_to_exitcode(status))


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _be(life: WorkerSpec) -> None:
    """The child: never returns."""
    ended_well = False
    try:
        random.seed()
        log = os.open(life.folder / "children.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        anyio.run(run_worker, life)
        ended_well = True
    except BaseException:  # noqa: BLE001 - a child must never come back into the zygote's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0 if ended_well else 1)


if __name__ == "__main__":
    main()
