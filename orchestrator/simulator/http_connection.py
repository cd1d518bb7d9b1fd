"""The server side of one HTTP/1.1 connection, with the means to fail as a network fails."""

import asyncio
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

MAX_HEAD_BYTES = 65_536
"""Limit of a request line with its headers: the `limit` of the stream reader."""
MAX_BODY_BYTES = 10 << 20
"""Largest body that the vendor accepts."""

_READ_SIZE = 65_536
_NO_LINGER = struct.pack("ii", 1, 0)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of the HTTP grammar
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(rf"({_TOKEN}):([^\x00-\x08\x0a-\x1f\x7f]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(r"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?")


@dataclass(frozen=True, slots=True)
class Request:
    """One complete request.

    Args:
        headers: names in lower case, values decoded as Latin-1; repeated headers are joined.
        body: at most `MAX_BODY_BYTES` + 1 bytes, so that the service sees that it was larger.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; without a Content-Length among the headers it is the length of the body.

    The answer to a HEAD request is sent without its body.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def with_header(self, name: str, value: str) -> "Response":
        """Return the same answer with one more header."""
        return replace(self, headers=(*self.headers, (name, value)))


class Connection:
    """The server side of one connection.

    Args:
        reader: its `limit` is `MAX_HEAD_BYTES`.
        number: of the connection, for the ledger.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer
        self._keep_alive = False
        self._without_body = False
        # drain() then returns when the system has all data, so close() can abort
        writer.transport.set_write_buffer_limits(0)

    async def receive(self) -> Request | None:
        """Return the next complete request, or None if there is none.

        A malformed request is answered with 400. The connection must be closed after None.
        """
        self._keep_alive = self._without_body = False
        try:
            return await self._read_request()
        except asyncio.IncompleteReadError:
            return None  # the client closed the connection
        except (ValueError, asyncio.LimitOverrunError) as error:
            body = f"Bad request: {error}\n".encode()
            await self.send(Response(400, body, (("Content-Type", "text/plain"),)))
            # closing now would reset a client that still sends, before it reads the answer
            self._writer.write_eof()
            await self.hang()
            return None

    async def send(self, response: Response) -> bool:
        """Send an answer; return whether the connection can take another request."""
        self._writer.write(self._encode(response))
        await self._writer.drain()
        return self._keep_alive

    async def send_half(self, response: Response) -> None:
        """Send an answer up to the middle of its body."""
        answer = self._encode(response)
        self._writer.write(answer[: -max(1, len(response.body) // 2)])
        await self._writer.drain()

    async def hang(self) -> None:
        """Send nothing until the client closes the connection."""
        while await self._reader.read(_READ_SIZE):
            pass

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.close()

    def close(self) -> None:
        """Close the socket immediately; data that was sent still arrives."""
        self._writer.transport.abort()

    async def _read_request(self) -> Request:
        first = await self._reader.readexactly(1)
        if not first.isalpha():
            # checked before the rest: the head of a TLS handshake would never end
            raise ValueError("malformed request line")
        head = first + await self._reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, minor_version = _match(_REQUEST_LINE, line, "request line").groups()
        headers: dict[str, str] = {}
        for field in lines:
            name, value = _match(_HEADER, field, "header").groups()
            name, value = name.lower(), value.strip(" \t")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        is_http_1_1 = minor_version == "1"
        if is_http_1_1 and "host" not in headers:
            raise ValueError("missing Host header")
        if is_http_1_1 and headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._read_body(headers)
        options = headers.get("connection", "").lower().replace(" ", "").split(",")
        self._keep_alive = is_http_1_1 and "close" not in options
        self._without_body = method == "HEAD"
        path, _, query = target.partition("?")
        return Request(method, path, query, headers, body)

    async def _read_body(self, headers: Mapping[str, str]) -> bytes:
        body = bytearray()
        if "transfer-encoding" not in headers:
            length = headers.get("content-length", "0")
            await self._read_into(body, int(_match(_LENGTH, length, "Content-Length")[0]))
            return bytes(body)
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise ValueError("unsupported Transfer-Encoding")
        while size := int(_match(_CHUNK_SIZE, await self._read_line(), "chunk size")[1], 16):
            await self._read_into(body, size)
            if await self._read_line():
                raise ValueError("a chunk is longer than its size")
        while await self._read_line():
            pass  # trailers are ignored
        return bytes(body)

    async def _read_into(self, body: bytearray, size: int) -> None:
        """Read this many bytes; keep those up to `MAX_BODY_BYTES` + 1 of a body."""
        while size:
            data = await self._reader.read(min(size, _READ_SIZE))
            if not data:
                raise asyncio.IncompleteReadError(b"", size)
            size -= len(data)
            body += data[: MAX_BODY_BYTES + 1 - len(body)]

    async def _read_line(self) -> str:
        return (await self._reader.readuntil(b"\r\n"))[:-2].decode("latin-1")

    def _encode(self, response: Response) -> bytes:
        headers = list(response.headers)
        if not any(name == "Content-Length" for name, _ in headers):
            headers.append(("Content-Length", str(len(response.body))))
        if not self._keep_alive:
            headers.append(("Connection", "close"))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 {response.status} \r\n{lines}\r\n".encode("latin-1")
        return head if self._without_body else head + response.body


def _match(pattern: re.Pattern[str], text: str, what: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(f"malformed {what}")
    return match
