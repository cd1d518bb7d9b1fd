"""One HTTP/1.1 connection, with the means to treat it badly."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

import h11

_CHUNK = 65_536
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as received; header names in lower case, bytes as Latin-1."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; its length is told from the body where no header says otherwise.

    The answer to a HEAD is sent without its body.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def with_header(self, name: str, value: str) -> "Response":
        """The same answer with one more header."""
        return replace(self, headers=(*self.headers, (name, value)))


class Connection:
    """The server's end of one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_CHUNK)
        self._bodiless = False
        # draining then means that everything has left, so that closing can be abrupt
        writer.transport.set_write_buffer_limits(0)

    async def receive(self) -> Request | None:
        """The next request, whole; ``None`` when the client sends no more."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        self._bodiless = head.method == b"HEAD"
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
        path, _, query = head.target.decode("latin-1").partition("?")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return Request(head.method.decode(), path, query, headers, bytes(body))

    async def send(self, response: Response) -> bool:
        """Sends an answer; whether the connection can take another request."""
        self._writer.write(self._encode(response))
        await self._writer.drain()
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def send_half(self, response: Response) -> None:
        """Sends an answer to the middle of its body; the rest never comes."""
        answer = self._encode(response)
        self._writer.write(answer[: -max(1, len(response.body) // 2)])
        await self._writer.drain()

    async def hang(self) -> None:
        """Says nothing until the client gives up."""
        while await self._reader.read(_CHUNK):
            pass

    def reset(self) -> None:
        """Cuts the connection off: the client sees a reset, not an end."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.close()

    def close(self) -> None:
        """Lets go of the socket at once; what was sent still arrives."""
        self._writer.transport.abort()

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_CHUNK))
        return event

    def _encode(self, response: Response) -> bytes:
        headers = list(response.headers)
        if not any(name == "Content-Length" for name, _ in headers):
            headers.append(("Content-Length", str(len(response.body))))
        head = self._http.send(h11.Response(status_code=response.status, headers=headers))
        body = b"" if self._bodiless else self._http.send(h11.Data(data=response.body))
        end = self._http.send(h11.EndOfMessage())
        return (head or b"") + (body or b"") + (end or b"")
