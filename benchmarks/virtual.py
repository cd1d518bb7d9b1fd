"""Hours of work in minutes: waiting takes no time, and calls to other threads run at once."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import aiosqlite.core
import anyio.to_thread

from tests.instant_loop import in_no_time

_Result = TypeVar("_Result")

_BEGIN = datetime(2026, 12, 1, tzinfo=UTC)


class VirtualClock:
    """The time of day by the running event loop."""

    def now(self) -> datetime:
        """Return the current time, aware and in UTC."""
        return _BEGIN + timedelta(seconds=asyncio.get_running_loop().time())


def memory_folder() -> Path | None:
    """Return a folder in memory; ``None`` if there is none.

    A disk would only make a virtual run slower.
    """
    shared = Path("/dev/shm")  # noqa: S108 - the folder made there has a name of its own
    return shared if shared.is_dir() else None


def in_virtual_time(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run work in which waiting takes no time.

    aiosqlite runs each call in a thread of its connection. While such a call was running, the
    virtual clock would jump on to the next time-out. So each call is made at once, in the event
    loop's thread. A call that waits for a database lock would never return: all work must share one
    `Database`.
    """
    with (
        patch.multiple(aiosqlite.core, SimpleQueue=_ImmediateQueue, Thread=_NoThread),
        patch.object(anyio.to_thread, "run_sync", _run_at_once),
    ):
        return in_no_time(work)


async def _run_at_once(call: Callable[..., _Result], *arguments: Any, **_: object) -> _Result:
    return call(*arguments)


class _ImmediateQueue:
    """Replaces the queue to the thread of a connection."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        """Make the call, and deliver its result in the next turn of the event loop."""
        future, call = item
        if future is None:
            call()
            return
        try:
            answer = partial(aiosqlite.core.set_result, future, call())
        except Exception as error:  # noqa: BLE001 - every error belongs to the caller
            answer = partial(aiosqlite.core.set_exception, future, error)
        future.get_loop().call_soon(answer)


class _NoThread:
    """Replaces the thread of a connection."""

    daemon = True

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None:
        """Do nothing."""
