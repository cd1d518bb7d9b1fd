"""One exchange after another over one connection, whatever form the answers have."""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSAttribute, TLSListener

from orchestrator.cloud.line import Line, open_line
from tests.certificates import self_signed

from .scripted import Answer, ScriptedServer, all_but, http

pytestmark = pytest.mark.anyio

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n"
TRUSTED = httpx.create_ssl_context()


async def opened(url: str, trusted: ssl.SSLContext = TRUSTED) -> Line:
    return await open_line(httpx.URL(url), trusted, seconds=2.0)


async def fill(url: str, lines: list[Line]) -> None:
    """Connects until nobody is let in any more."""
    while len(lines) < 8:
        lines.append(await open_line(httpx.URL(url), TRUSTED, seconds=0.2))


@pytest.fixture
async def line(server: ScriptedServer) -> AsyncIterator[Line]:
    """A line to the scripted server."""
    line = await opened(server.url)
    yield line
    await line.aclose()


async def asked(
    line: Line,
    server: ScriptedServer,
    answer: Answer | bytes,
    method: str = "GET",
    url: str | None = None,
) -> httpx.Response:
    server.will(answer)
    with anyio.fail_after(5):
        return await line.exchange(httpx.Request(method, url or server.url))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http("whole"), "whole"),
        (CHUNKED, "one two"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + http("after hints"), "after hints"),
        (http("x" * 300_000), "x" * 300_000),
    ],
    ids=["sized", "chunked", "empty", "announced", "long"],
)
async def test_an_answer_is_read_whole_and_the_line_goes_on(
    server: ScriptedServer, line: Line, answer: bytes, said: str
) -> None:
    """Whatever its form, all of an answer is read, and the next request finds an idle line."""
    for _ in range(2):
        assert (await asked(line, server, answer)).text == said
        assert line.is_idle
        assert not line.is_ending
    assert server.opened == 1


async def test_an_answer_to_head_has_no_body(server: ScriptedServer, line: Line) -> None:
    """Its Content-Length tells of what it leaves out; the next answer is read from its start."""
    headed = http(headers={"Content-Length": "12", "ETag": '"e"'})
    answer = await asked(line, server, headed, "HEAD")
    assert (answer.headers["ETag"], answer.content) == ('"e"', b"")
    assert (await asked(line, server, http("next"))).text == "next"


@pytest.mark.parametrize(
    "last",
    [
        Answer(http("bye", headers={"Connection": "close"}), "close"),
        Answer(b"HTTP/1.1 200 OK\r\n\r\nbye", "close"),
        Answer(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nbye", "close"),
    ],
    ids=["said", "without a length", "old"],
)
async def test_a_last_answer_is_read_and_ends_the_line(
    server: ScriptedServer, line: Line, last: Answer
) -> None:
    """A server that closes after its answer has answered; nothing more is sent to it."""
    assert (await asked(line, server, last)).text == "bye"
    assert not line.is_idle


@pytest.mark.parametrize("last", [Answer(http("bye"), "close"), http("once") + http("twice")])
async def test_what_comes_unasked_ends_the_line(
    server: ScriptedServer, line: Line, last: Answer | bytes
) -> None:
    """A server that hangs up, or goes on talking, is not taken to answer the next request."""
    await asked(line, server, last)
    with anyio.fail_after(5):
        while line.is_idle and not line.is_ending:
            await anyio.sleep(0.01)


async def test_what_cannot_be_written_has_not_left(server: ScriptedServer, line: Line) -> None:
    """A header that HTTP has no form for is refused here, and the server hears nothing of it."""
    request = httpx.Request("GET", server.url, headers={"X-Split": "a\r\nb"})
    with pytest.raises(httpx.LocalProtocolError):
        await line.exchange(request)
    await line.aclose()
    await all_but(server, 0)
    assert not server.requests


async def test_a_request_leaves_in_one_piece() -> None:
    """Head and body arrive together: a packet more would be a moment more in which to break."""
    received: list[bytes] = []

    async def serve(stream: SocketStream) -> None:
        async with stream:
            received.append(await stream.receive())
            await stream.send(http())

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, serve)
        url = f"http://127.0.0.1:{listener.extra_attributes[SocketAttribute.local_port]()}"
        line = await opened(url)
        await line.exchange(httpx.Request("POST", url, content=b"body"))
        await line.aclose()
        group.cancel_scope.cancel()
    assert received[0].endswith(b"\r\n\r\nbody")


async def test_a_server_that_never_accepts_is_a_connect_time_out() -> None:
    """Where the wish to connect is not even refused, nothing has left."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        lines: list[Line] = []
        with pytest.raises(httpx.ConnectTimeout):
            await fill(url, lines)
        with pytest.raises(httpx.ConnectTimeout), anyio.fail_after(1):
            await opened(url)
        for line in lines:
            await line.aclose()


async def test_nothing_but_http_is_spoken() -> None:
    """Another scheme is refused before anybody is called."""
    with pytest.raises(httpx.UnsupportedProtocol):
        await opened("ftp://127.0.0.1")


@asynccontextmanager
async def in_secret(
    folder: Path, serve: Callable[[ByteStream], Awaitable[None]]
) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """A server that speaks TLS: where it listens, and what trusts it."""
    context, certificate = self_signed(folder)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as plain,
        TLSListener(plain, context, standard_compatible=False) as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, serve)
        port = plain.extra_attributes[SocketAttribute.local_port]()
        yield f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=certificate)
        group.cancel_scope.cancel()


async def test_https_is_spoken_with_whom_we_trust(tmp_path: Path) -> None:
    """A server is spoken to under its certificate's name alone, and if it is trusted."""
    server = ScriptedServer(0)
    async with in_secret(tmp_path, server.serve) as (url, trusting):
        line = await opened(url, trusting)
        for _ in range(2):
            assert (await asked(line, server, http("in secret"), url=url)).text == "in secret"
            assert line.is_idle
        await line.aclose()
        elsewhere = url.replace("127.0.0.1", "localhost")
        for other, trusted in ((url, TRUSTED), (elsewhere, trusting)):
            with pytest.raises(httpx.ConnectError) as caught:
                await opened(other, trusted)
            assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_what_comes_unasked_in_secret_ends_the_line(tmp_path: Path) -> None:
    """A second answer that hides behind the first, in a record of its own, answers nothing."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()
            hidden = stream.extra(TLSAttribute.ssl_object)  # noqa: S610 - anyio's, no query of Django's
            hidden.write(http("first"))
            await stream.send(http("second"))
            await anyio.sleep_forever()

    async with in_secret(tmp_path, serve) as (url, trusting):
        line = await opened(url, trusting)
        assert (await line.exchange(httpx.Request("GET", url))).text == "first"
        assert not line.is_idle
        await line.aclose()


async def test_a_record_that_cannot_be_read_breaks_the_line(tmp_path: Path) -> None:
    """What TLS does not understand is an answer that did not come, whatever class it has there."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()
            raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's, no query of Django's
            os.write(raw.fileno(), b"this is no record")
            await anyio.sleep_forever()

    async with in_secret(tmp_path, serve) as (url, trusting):
        line = await opened(url, trusting)
        with pytest.raises(httpx.ReadError):
            await line.exchange(httpx.Request("GET", url))
        await line.aclose()
