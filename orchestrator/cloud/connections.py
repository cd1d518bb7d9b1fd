"""Connections kept open between requests; nobody waits for one, and none is used by two at once."""

import ssl

import anyio
import httpx

from orchestrator.cloud.line import Line, open_line

_Server = tuple[bytes, bytes]
"""Scheme, and host with port."""


class Connections(httpx.AsyncBaseTransport):
    """Sends each request over the connection last used to its server, or over a new one.

    An answer is read to its end before it is given out: those of the vendor's services are short.
    Connecting has a time limit of its own; that of a whole request is its sender's to keep.

    Args:
        most: idle connections that are kept.
        seconds: how long one may be idle.
        connect_within: seconds.
    """

    def __init__(self, *, most: int, seconds: float, connect_within: float) -> None:
        self._most = most
        self._seconds = seconds
        self._connect_within = connect_within
        self._trusted = _trusted()
        self._idle: list[tuple[_Server, Line, float]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; a connection that breaks under it is not used again.

        Raises:
            httpx.TransportError, httpx.DecodingError: no whole answer came.
        """
        url = request.url
        server = url.raw_scheme, url.netloc
        line = await self._kept(server)
        if line is None:
            line = await open_line(url, self._trusted, self._connect_within)
        try:
            response = await line.exchange(request)
        except BaseException:
            await line.aclose()
            raise
        await self._keep(server, line)
        return response

    async def aclose(self) -> None:
        """Close what is idle."""
        while self._idle:
            _, line, _ = self._idle.pop()
            await line.aclose()

    async def _kept(self, server: _Server) -> Line | None:
        """The connection last used to a server, if it can be used again."""
        for number in reversed(range(len(self._idle))):
            its_server, line, since = self._idle[number]
            if its_server == server:
                del self._idle[number]
                if since >= anyio.current_time() - self._seconds and not line.is_ending:
                    return line
                await line.aclose()
                return None
        return None

    async def _keep(self, server: _Server, line: Line) -> None:
        if not line.is_idle:
            await line.aclose()
            return
        now = anyio.current_time()
        self._idle.append((server, line, now))
        _, first, since = self._idle[0]
        # one is added, so one at a time may go
        if len(self._idle) > self._most or since < now - self._seconds:
            del self._idle[0]
            await first.aclose()


def _trusted() -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
