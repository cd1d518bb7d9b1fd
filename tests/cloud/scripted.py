"""A server that answers with the bytes it is told, and what else the tests of this folder share."""

import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import parse_qsl, unquote

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from orchestrator.cloud.credentials.base import Credential

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
KEYS = Credential("AKIDexample", "not-a-secret-of-anyone")
TEMPORARY_KEYS = Credential("AKIDtemporary", "not-a-secret-either", "a-token-of-nobody")


@dataclass
class HeldClock:
    """A clock that stands where it was put."""

    moment: datetime = NOON

    def now(self) -> datetime:
        """Where it was put."""
        return self.moment


@dataclass
class HeldKeys:
    """A source that gives the keys it was given."""

    credential: Credential = KEYS

    async def current(self) -> Credential:
        """What it was given."""
        return self.credential

    async def renew(self) -> Credential:
        """What it was given, again."""
        return self.credential

    async def keep_fresh(self) -> None:
        """They never run out."""


@dataclass(frozen=True)
class Answer:
    """Bytes for one request, and what becomes of the connection afterwards."""

    raw: bytes = b""
    then: Literal["keep", "close", "reset", "hang"] = "keep"


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived; the names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target before the query, decoded."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the target, decoded."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


@dataclass
class ScriptedServer:
    """Answers each request with the next answer of its script, and records the requests.

    Attributes:
        opened: connections so far.
        open: connections that are still open.
    """

    port: int
    script: deque[Answer] = field(default_factory=deque)
    requests: list[Recorded] = field(default_factory=list)
    opened: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def will(self, *answers: Answer | bytes) -> None:
        """Add answers to the script; bare bytes keep the connection."""
        self.script.extend(a if isinstance(a, Answer) else Answer(a) for a in answers)

    async def serve(self, stream: ByteStream) -> None:
        """Hold one connection."""
        self.opened += 1
        self.open += 1
        try:
            await self._converse(stream)
        finally:
            self.open -= 1

    async def _converse(self, stream: ByteStream) -> None:
        async with stream:
            while (request := await _request(stream)) is not None:
                self.requests.append(request)
                answer = self.script.popleft()
                await stream.send(answer.raw)
                if answer.then == "hang":
                    await _request(stream)  # none comes: it returns when the client goes away
                if answer.then == "reset":
                    lingering = b"\x01\x00\x00\x00" + b"\x00" * 4
                    raw: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's, no query of Django's
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
                if answer.then != "keep":
                    return


async def all_but(server: ScriptedServer, open_ones: int) -> None:
    """Waits until no more connections than these are open."""
    with anyio.fail_after(5):
        while server.open > open_ones:
            await anyio.sleep(0.01)


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    """A scripted server on a free port of the loopback."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        server = ScriptedServer(listener.extra_attributes[SocketAttribute.local_port]())
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, server.serve)
            yield server
            group.cancel_scope.cancel()


async def _request(stream: ByteStream) -> Recorded | None:
    """Read one request; return None when the client closes the connection instead."""
    buffered = BufferedByteReceiveStream(stream)
    try:
        head = await buffered.receive_until(b"\r\n\r\n", max_bytes=65_536)
        line, *lines = head.decode().split("\r\n")
        method, target, _ = line.split(" ")
        fields = (one.partition(":") for one in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = await buffered.receive_exactly(int(headers.get("content-length", 0)))
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
        return None
    return Recorded(method, target, headers, body)


def http(
    body: bytes | str = b"",
    *,
    status: str = "200 OK",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of one HTTP answer; a Content-Length among the headers stands."""
    content = body.encode() if isinstance(body, str) else body
    lines = {"Content-Length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + content


def api(
    answer: object, *, status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of an answer of the API around the given ``Response``."""
    typed = {"Content-Type": "application/json", **(headers or {})}
    return http(json.dumps({"Response": answer}), status=status, headers=typed)


def http_date(moment: datetime, ahead: timedelta = timedelta()) -> str:
    """A moment as a Date header."""
    return (moment + ahead).strftime("%a, %d %b %Y %H:%M:%S GMT")
