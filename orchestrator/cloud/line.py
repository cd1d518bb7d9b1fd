"""One connection, and one exchange over it at a time: HTTP/1.1 as h11 speaks it.

Little of HTTP is wanted here, and that exactly: each request leaves once, in one piece, and where
no answer comes, the exception tells whether any of it can have left.
"""

import errno
import os
import select
import socket
import ssl

import anyio
import h11
import httpx
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute

_AT_ONCE = 262_144
"""Bytes that are read at a time: all that asyncio reads at once, so that none of it stays there."""

_LONGEST_HEAD = 102_400
"""Bytes of an answer's headers, above which it is none."""

_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, ssl.SSLError)
"""What anyio says of a connection that is none any more."""


_PART = 0.9
"""Of the time that is left for a whole request, what connecting may take."""


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
    # less than the whole request has: at its end nobody could tell that nothing has left
    seconds = min(seconds, _PART * (anyio.current_effective_deadline() - anyio.current_time()))
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
        raise httpx.ConnectTimeout(f"{host}:{port}: no connection in {seconds:g} s") from error
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise httpx.ConnectError(f"{host}:{port}: {_why(error)}") from error


class Line:
    """A connection to a server.

    Args:
        stream: opened by `open_line`.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        told = stream.extra
        self._secret = told(TLSAttribute.ssl_object, None)
        self._unasked = select.poll()
        self._unasked.register(told(SocketAttribute.raw_socket), select.POLLIN)

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
            httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError: some of it may have
                arrived.
            httpx.DecodingError: the answer is not packed as it says.
        """
        written = self._written(request)
        try:
            await self._stream.send(written)
        except _BROKEN as error:
            raise httpx.WriteError(_why(error), request=request) from error
        try:
            return await self._answer()
        except _BROKEN as error:
            raise httpx.ReadError(_why(error), request=request) from error
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error

    async def aclose(self) -> None:
        """Hangs up, and is not kept from it: an answer may be in hand."""
        with anyio.CancelScope(shield=True):
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
        if not self._has_gone_on() and self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return httpx.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            content=bytes(body),
            extensions={"reason_phrase": head.reason},
        )

    def _has_gone_on(self) -> bool:
        """Whether more has come than the answer, which would be taken to answer the next request.

        Over TLS it may lie where neither h11 nor the system sees it.
        """
        unread, has_hung_up = self._http.trailing_data
        if unread or has_hung_up:
            return True
        if self._secret is None:
            return False
        try:
            self._secret.read(1)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            pass  # it has hung up, or talks nonsense
        return True

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


def _why(error: Exception) -> str:
    """What the system says, which anyio keeps behind a word of its own."""
    cause: BaseException = error.__cause__ or error
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]  # one for each address; that of IPv4 is tried last
    # the numbers of TLS and of names are none of the system's
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError | socket.gaierror):
        number = cause.errno or 0
        return os.strerror(number) if number in errno.errorcode else str(cause)
    return str(cause) or type(cause).__name__
