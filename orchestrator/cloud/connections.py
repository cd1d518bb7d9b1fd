"""Connections kept open between requests, each in a pool of its own.

httpcore's pool asks the system about every idle connection, twice for each request: with sixteen of
them that is more than half of what a request costs. A pool of one has nothing to search.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import anyio
import httpx

_Place = tuple[bytes, bytes]
"""Scheme, and host with port."""


@dataclass(frozen=True, slots=True)
class _Idle:
    place: _Place
    line: httpx.AsyncHTTPTransport
    since: float


class Connections(httpx.AsyncBaseTransport):
    """Sends each request over the connection last used to its place, or over a new one.

    Args:
        most: idle connections that are kept.
        seconds: how long one may be idle.
    """

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._trusted = httpx.create_ssl_context()
        self._idle: list[_Idle] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; a connection that breaks under it is not used again."""
        place = request.url.raw_scheme, request.url.netloc
        line = self._kept(place) or self._new()
        response = await line.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Answer(response.stream, partial(self._keep, place, line))
        return response

    async def aclose(self) -> None:
        """Close what is idle."""
        while self._idle:
            await self._idle.pop().line.aclose()

    def _kept(self, place: _Place) -> httpx.AsyncHTTPTransport | None:
        for number in reversed(range(len(self._idle))):
            if self._idle[number].place == place:
                return self._idle.pop(number).line
        return None

    def _new(self) -> httpx.AsyncHTTPTransport:
        one = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._seconds
        )
        return httpx.AsyncHTTPTransport(verify=self._trusted, limits=one)

    async def _keep(self, place: _Place, line: httpx.AsyncHTTPTransport) -> None:
        now = anyio.current_time()
        self._idle.append(_Idle(place, line, now))
        # one is added, so one at a time may go
        if len(self._idle) > self._most or self._idle[0].since < now - self._seconds:
            await self._idle.pop(0).line.aclose()


class _Answer(httpx.AsyncByteStream):
    """An answer's bytes; once it is closed, its connection is free."""

    def __init__(self, parts: httpx.AsyncByteStream, free: Callable[[], Awaitable[None]]) -> None:
        self._parts = parts
        self._free = free

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._parts:
            yield part

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._parts.aclose()
        await self._free()
