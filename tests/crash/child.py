"""A process that drains a store, and may kill itself at a commit; started by the crash tests.

The killing stands here, in a listener on the engine, so that the product needs no hook for it.
"""

import argparse
import itertools
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa

from tests.flow.scene import orchestrator_at


def main() -> None:
    """Reads the command line, arms the killer, drains."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="of the cloud")
    parser.add_argument("folder", type=Path, help="of the store")
    parser.add_argument("--kill-at", type=int, help="die instead of making this commit")
    parser.add_argument("--of", default="", help="count only transactions with this in a statement")
    options = parser.parse_args()
    if options.kill_at is not None:
        die_at_commit(options.kill_at, options.of)
    anyio.run(drain, options.url, options.folder)


async def drain(url: str, folder: Path) -> None:
    """Runs until nothing can move."""
    async with orchestrator_at(url, folder) as orchestrator:
        await orchestrator.run()


def die_at_commit(number: int, statement: str) -> None:
    """Has this process die, as by SIGKILL, in place of its n-th commit.

    Args:
        statement: only transactions count in which a statement holds this text.
    """
    numbers = itertools.count(1)

    @sa.event.listens_for(sa.Engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        connection.info["counts"] = False

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def _executed(connection: sa.Connection, _cursor: object, text: str, *_rest: Any) -> None:
        if statement in text:
            connection.info["counts"] = True

    @sa.event.listens_for(sa.Engine, "commit")
    def _committed(connection: sa.Connection) -> None:
        if connection.info.get("counts") and next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
