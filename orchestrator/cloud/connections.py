"""Connections kept open between requests, each for one request at a time.

httpcore's pool asks the system about every idle connection, twice for each request: with sixteen of
them that is more than half of what a request costs. Nobody waits for a connection here, so that a
list of the idle ones is all that a pool need be.
"""

import anyio
import httpcore
import httpx

_NAMES = (
    *("ConnectError", "ReadError", "WriteError"),
    *("ConnectTimeout", "ReadTimeout", "WriteTimeout"),
    *("LocalProtocolError", "RemoteProtocolError"),
)
_SAME = {getattr(httpcore, name): getattr(httpx, name) for name in _NAMES}
"""What may go wrong has the same names in both libraries."""


class Connections(httpx.AsyncBaseTransport):
    """Sends each request over the connection last used to its server, or over a new one.

    An answer is read to its end before it is given out: those of the vendor's services are short.

    Args:
        most: idle connections that are kept.
        seconds: how long one may be idle.
    """

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._trusted = httpx.create_ssl_context()
        self._idle: list[tuple[_Line, float]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; a connection that breaks under it is not used again.

        Raises:
            httpx.TransportError: no whole answer came.
        """
        asked = _asked(request)
        line = await self._kept(asked.url.origin) or self._new(asked.url.origin)
        try:
            response = await line.handle_async_request(asked)
            content = await response.aread()
            await response.aclose()
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await line.aclose()
            if same := _SAME.get(type(error)):
                raise same(str(error), request=request) from error
            raise
        if line.is_idle():
            await self._keep(line)
        return httpx.Response(response.status, headers=response.headers, content=content)

    async def aclose(self) -> None:
        """Close what is idle."""
        while self._idle:
            line, _ = self._idle.pop()
            await line.aclose()

    async def _kept(self, origin: httpcore.Origin) -> "_Line | None":
        """The connection last used to a server, if it has not been closed there meanwhile."""
        for number in reversed(range(len(self._idle))):
            line, _ = self._idle[number]
            if line.can_handle_request(origin):
                del self._idle[number]
                if not line.has_expired():
                    return line
                await line.aclose()
                return None
        return None

    def _new(self, origin: httpcore.Origin) -> "_Line":
        return _Line(origin, ssl_context=self._trusted, keepalive_expiry=self._seconds)

    async def _keep(self, line: "_Line") -> None:
        now = anyio.current_time()
        self._idle.append((line, now))
        first, since = self._idle[0]
        # one is added, so one at a time may go
        if len(self._idle) > self._most or since < now - self._seconds:
            del self._idle[0]
            await first.aclose()


_Line = httpcore.AsyncHTTPConnection


def _asked(request: httpx.Request) -> httpcore.Request:
    """The request as httpcore takes it."""
    url = request.url
    target = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    return httpcore.Request(
        request.method,
        target,
        headers=request.headers.raw,
        content=request.content,
        extensions=request.extensions,
    )
