"""A relay before a server: what lies between two machines, and can be cut."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream


class Relay:
    """Passes on what comes, until it is cut.

    Args:
        port: on loopback, of the server behind it.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self._behind = port
        self._open: set[anyio.CancelScope] = set()
        self._is_cut = False

    def cut(self) -> None:
        """Ends every connection, and lets none begin, as a server that restarts does."""
        self._is_cut = True
        for scope in self._open:
            scope.cancel()

    def restore(self) -> None:
        """Lets connections begin again."""
        self._is_cut = False

    async def handle(self, near: SocketStream) -> None:
        """One connection, from its beginning to its end."""
        if self._is_cut:
            await near.aclose()
            return
        with anyio.CancelScope() as scope:
            self._open.add(scope)
            async with (
                near,
                await anyio.connect_tcp("127.0.0.1", self._behind) as far,
                anyio.create_task_group() as ways,
            ):
                ways.start_soon(_pass_on, near, far, ways.cancel_scope)
                ways.start_soon(_pass_on, far, near, ways.cancel_scope)
        self._open.discard(scope)


async def _pass_on(source: SocketStream, target: SocketStream, both: anyio.CancelScope) -> None:
    try:
        async for piece in source:
            await target.send(piece)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # either side may hang up
    both.cancel()


@asynccontextmanager
async def open_relay(port: int) -> AsyncIterator[Relay]:
    """A relay on a free port of loopback, until the block ends."""
    relay = Relay(port)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    relay.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - this is no Django
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, relay.handle)
        yield relay
        tasks.cancel_scope.cancel()
