"""A TCP relay in front of a server; a test can interrupt its connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream


class Relay:
    """Forwards data in both directions, until it is cut.

    Args:
        port: port of the server behind it, on loopback.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self._behind = port
        self._open: set[anyio.CancelScope] = set()
        self._is_cut = False

    def cut(self) -> None:
        """Close every connection and refuse new ones, as a restarting server does."""
        self._is_cut = True
        for scope in self._open:
            scope.cancel()

    def restore(self) -> None:
        """Accept connections again."""
        self._is_cut = False

    async def handle(self, near: SocketStream) -> None:
        """Forward the data of one connection until it ends."""
        if self._is_cut:
            await near.aclose()
            return
        with anyio.CancelScope() as scope:
            self._open.add(scope)
            async with (
                near,
                await anyio.connect_tcp("127.0.0.1", self._behind) as far,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(_forward, near, far, tasks.cancel_scope)
                tasks.start_soon(_forward, far, near, tasks.cancel_scope)
        self._open.discard(scope)


async def _forward(source: SocketStream, target: SocketStream, both: anyio.CancelScope) -> None:
    try:
        async for piece in source:
            await target.send(piece)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # either side can close the connection
    both.cancel()


@asynccontextmanager
async def open_relay(port: int) -> AsyncIterator[Relay]:
    """Run a relay on a free port of loopback until the block ends."""
    relay = Relay(port)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    relay.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - this is no Django
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, relay.handle)
        yield relay
        tasks.cancel_scope.cancel()
