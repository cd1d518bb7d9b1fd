"""One connection, and one exchange over it at a time: HTTP/1.1 as h11 speaks it.

Little of HTTP is wanted here, and that exactly: each request leaves once, in one piece, and where
no answer comes, the exception tells whether any of it can have left.
"""

import select
import ssl

import anyio
import h11
import httpx
from anyio.abc import ByteStream, SocketAttribute

_AT_ONCE = 65_536
"""Bytes that are read at a time."""

_LONGEST_HEAD = 102_400
"""Bytes of an answer's headers, above which it is none."""


async def open_line(url: httpx.URL, trusted: ssl.SSLContext, seconds: float) -> "Line":
    """Connects to the server of this URL, and trusts it.

    Raises:
        httpx.ConnectError, httpx.ConnectTimeout: nothing has left but the wish to connect.
        httpx.UnsupportedProtocol: it is neither ``http`` nor ``https``.
    """
    host, is_secret = url.raw_host.decode(), url.scheme == "https"
    if not is_secret and url.scheme != "http":
        raise httpx.UnsupportedProtocol(f"{url.scheme}:// is not spoken here")
    port = url.port or (443 if is_secret else 80)
    try:
        with anyio.fail_after(seconds):
            if not is_secret:
                return Line(await anyio.connect_tcp(host, port))
            return Line(
                await anyio.connect_tcp(
                    host, port, tls=True, ssl_context=trusted, tls_standard_compatible=False
                )
            )
    except TimeoutError as error:
        raise httpx.ConnectTimeout(f"no connection within {seconds:g} s") from error
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise httpx.ConnectError(str(error) or type(error).__name__) from error


class Line:
    """A connection to a server.

    Args:
        stream: opened by `open_line`.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self._unasked = select.poll()
        self._unasked.register(
            stream.extra(SocketAttribute.raw_socket),  # noqa: S610 - no query of Django's
            select.POLLIN,
        )

    @property
    def is_idle(self) -> bool:
        """Whether another request can be sent."""
        return self._http.our_state is h11.IDLE

    @property
    def is_ending(self) -> bool:
        """Whether the server says something unasked, which can only be that it hangs up."""
        return bool(self._unasked.poll(0))

    async def exchange(self, request: httpx.Request) -> httpx.Response:
        """Sends a request, and reads the whole answer.

        Raises:
            httpx.LocalProtocolError: the request cannot be sent, and nothing of it was.
            httpx.ReadError, httpx.RemoteProtocolError: some of it may have arrived.
        """
        written = self._written(request)
        try:
            await self._stream.send(written)
            return await self._answer()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            why = error.__cause__ or error
            raise httpx.ReadError(str(why) or type(why).__name__, request=request) from error
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error

    async def aclose(self) -> None:
        """Hangs up."""
        await self._stream.aclose()

    def _written(self, request: httpx.Request) -> bytes:
        """The request as one piece, so that it is not torn between two packets for nothing."""
        url, headers, body = request.url, request.headers.raw, request.content
        try:
            head = h11.Request(method=request.method, target=url.raw_path, headers=headers)
            events = (head, h11.Data(data=body), h11.EndOfMessage())
            return b"".join(filter(None, map(self._http.send, events)))
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error), request=request) from error

    async def _answer(self) -> httpx.Response:
        while not isinstance(head := await self._next_event(), h11.Response):
            pass  # it only says that there is more to come
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
        has_more, _ = self._http.trailing_data
        # who goes on talking would be taken to answer the next request
        if not has_more and self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        headers = head.headers.raw_items()
        return httpx.Response(head.status_code, headers=headers, content=bytes(body))

    async def _next_event(self) -> object:
        """What comes next of the answer.

        Raises:
            h11.RemoteProtocolError: nothing does, or nothing that can be understood.
        """
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                data = await self._stream.receive(_AT_ONCE)
            except anyio.EndOfStream:
                data = b""
            if not data and self._http.their_state is h11.SEND_RESPONSE:
                raise h11.RemoteProtocolError("the server hung up without an answer")
            self._http.receive_data(data)
        return event
