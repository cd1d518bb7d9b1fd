"""Real proxies on loopback, which connect every client to one server, whatever host it asks for."""

import base64
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener

Serve = Callable[[ByteStream], Awaitable[None]]


@dataclass
class ProxyServer:
    """A proxy.

    Attributes:
        asked: the hosts, with ports, that clients wanted to be connected to; of plain requests the
            URL.
    """

    port: int
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Host and port, as a message names them."""
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def http_proxy(
    server_port: int,
    *,
    answer: bytes = b"",
    refused: str = "",
    login: str = "",
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[ProxyServer]:
    """Run a proxy for plain requests and tunnels.

    Args:
        answer: sent to every request in the place of a connection.
        refused: send the answer only to requests for hosts with this text in their names.
        login: user name and password, separated by a colon, that every request must have.
        context: makes it a proxy with TLS.
    """
    wanted = base64.b64encode(login.encode()).decode()

    async def serve(stream: ByteStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        method, target, rest = head.split(b" ", 2)
        proxy.asked.append(target.decode())
        is_known = f"Proxy-Authorization: Basic {wanted}\r\n".encode() in head
        reply = answer if refused in proxy.asked[-1] else b""
        if reply or (login and not is_known):
            await stream.send(reply or b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            await stream.receive()  # until the client has read the answer, and closes
        else:
            async with await anyio.connect_tcp("127.0.0.1", server_port) as upstream:
                if method == b"CONNECT":
                    await stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = b"/" + target.split(b"/", 3)[3]
                    await upstream.send(b" ".join([method, path, rest]))
                await forward_both_ways(stream, upstream)

    async with _listening(serve, context) as port:
        proxy = ProxyServer(port)
        yield proxy


@asynccontextmanager
async def socks_proxy(
    server_port: int, *, login: str = "", reply: int = 0
) -> AsyncIterator[ProxyServer]:
    """Run a proxy of SOCKS 5 (RFC 1928, RFC 1929).

    Args:
        login: user name and password, separated by a colon, that it asks for.
        reply: what it answers to CONNECT; 0 is success.
    """

    async def serve(stream: ByteStream) -> None:
        reader = BufferedByteReceiveStream(stream)

        async def field_of(size: int | None = None) -> bytes:
            return await reader.receive_exactly(size or (await reader.receive_exactly(1))[0])

        assert await field_of(1) == b"\x05"
        method = 2 if login else 0
        offered = await field_of()
        await stream.send(bytes([5, method if method in offered else 0xFF]))
        if method not in offered:
            return
        if login:
            assert await field_of(1) == b"\x01"
            is_right = b":".join([await field_of(), await field_of()]) == login.encode()
            await stream.send(bytes([1, not is_right]))
            if not is_right:
                return
        version, command, _, kind = await field_of(4)
        assert (version, command) == (5, 1)
        host = await field_of({1: 4, 4: 16}.get(kind))
        port = int.from_bytes(await field_of(2))
        name = host.decode() if kind == 3 else socket.inet_ntop(socket.AF_INET, host)
        proxy.asked.append(f"{name}:{port}")
        await stream.send(bytes([5, reply, 0, 1, 127, 0, 0, 1, 0, 0]))
        if reply == 0:
            async with await anyio.connect_tcp("127.0.0.1", server_port) as upstream:
                await forward_both_ways(stream, upstream)

    async with _listening(serve) as port:
        proxy = ProxyServer(port)
        yield proxy


@asynccontextmanager
async def tls_server(server_port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Run a server that ends TLS in front of another server; yield its port."""

    async def serve(stream: ByteStream) -> None:
        async with await anyio.connect_tcp("127.0.0.1", server_port) as upstream:
            await forward_both_ways(stream, upstream)

    async with _listening(serve, context) as port:
        yield port


async def forward_both_ways(one: ByteStream, other: ByteStream) -> None:
    """Forward data in both directions until either side ends."""
    async with anyio.create_task_group() as ways:

        async def back() -> None:
            await _forward(other, one)
            ways.cancel_scope.cancel()

        ways.start_soon(_forward, one, other)
        ways.start_soon(back)


async def _forward(one: ByteStream, other: ByteStream) -> None:
    """Forward data in one direction until that side ends."""
    try:
        async for data in one:
            await other.send(data)
        if isinstance(other, SocketStream):  # TLS cannot end one direction alone
            await other.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


@asynccontextmanager
async def _listening(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def serve_until_closed(stream: ByteStream) -> None:
        try:
            async with stream:
                await serve(stream)
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):
            pass  # the client has closed the connection

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as plain,
        anyio.create_task_group() as group,
    ):
        listener = plain if context is None else TLSListener(plain, context, False)
        group.start_soon(listener.serve, serve_until_closed)
        yield plain.extra_attributes[SocketAttribute.local_port]()
        group.cancel_scope.cancel()
