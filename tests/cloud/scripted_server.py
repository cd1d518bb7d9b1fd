"""A server that sends the bytes a test gives it, and other helpers of the tests of this folder."""

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

from orchestrator.cloud.credentials.base import Credential, CredentialSource

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
CREDENTIAL = Credential("AKIDexample", "not-a-secret-of-anyone")
TEMPORARY = Credential("AKIDtemporary", "not-a-secret-either", "a-token-of-nobody")


@dataclass
class FixedClock:
    """A clock that the test sets."""

    moment: datetime = NOON

    def now(self) -> datetime:
        """Return the time that the test has set."""
        return self.moment


@dataclass
class FixedCredentials(CredentialSource):
    """A source that always returns the credential it was given."""

    credential: Credential = CREDENTIAL

    async def current(self) -> Credential:
        """Return the credential."""
        return self.credential

    async def renew(self) -> Credential:
        """Return the same credential again."""
        return self.credential

    async def keep_fresh(self) -> None:
        """Return at once: it never expires."""


@dataclass(frozen=True)
class Answer:
    """The bytes sent for one request, and what the server then does with the connection."""

    raw: bytes = b""
    then: Literal["keep", "close", "reset", "hang"] = "keep"


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived; names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Return the path without the query, decoded."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, str]:
        """Return the parameters of the query, decoded."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


@dataclass
class ScriptedServer:
    """Answer each request with the next answer of the script, and record the requests.

    Attributes:
        opened: number of connections so far.
        open: number of connections that are open now.
    """

    port: int
    script: deque[Answer] = field(default_factory=deque)
    requests: list[Recorded] = field(default_factory=list)
    opened: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        """Return the base URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def respond(self, *answers: Answer | bytes) -> None:
        """Add answers to the script; after plain bytes the connection stays open."""
        self.script.extend(a if isinstance(a, Answer) else Answer(a) for a in answers)

    async def serve(self, stream: ByteStream) -> None:
        """Serve one connection."""
        self.opened += 1
        self.open += 1
        try:
            await self._answer_requests(stream)
        finally:
            self.open -= 1

    async def _answer_requests(self, stream: ByteStream) -> None:
        async with stream:
            while (request := await _request(stream)) is not None:
                self.requests.append(request)
                answer = self.script.popleft()
                await stream.send(answer.raw)
                if answer.then == "hang":
                    await _request(stream)  # returns when the client closes the connection
                if answer.then == "reset":
                    linger_off = b"\x01\x00\x00\x00" + b"\x00" * 4
                    raw: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not a Django query
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_off)
                if answer.then != "keep":
                    return


async def all_closed(server: ScriptedServer) -> None:
    """Wait until the server has no open connection."""
    with anyio.fail_after(5):
        while server.open:
            await anyio.sleep(0.01)


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    """Run a scripted server on a free port of loopback."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        server = ScriptedServer(listener.extra_attributes[SocketAttribute.local_port]())
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, server.serve)
            yield server
            group.cancel_scope.cancel()


async def _request(stream: ByteStream) -> Recorded | None:
    """Read one request; return ``None`` if the client closes the connection instead."""
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
    """Return the bytes of one HTTP answer.

    Args:
        headers: added to Content-Length, which they may replace.
    """
    content = body.encode() if isinstance(body, str) else body
    lines = {"Content-Length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + content


def api(
    answer: object, *, status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes of an API answer with this ``Response``."""
    typed = {"Content-Type": "application/json", **(headers or {})}
    return http(json.dumps({"Response": answer}), status=status, headers=typed)


def http_date(moment: datetime, ahead: timedelta = timedelta()) -> str:
    """Return a time as a Date header."""
    return (moment + ahead).strftime("%a, %d %b %Y %H:%M:%S GMT")
