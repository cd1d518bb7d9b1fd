"""One request, once, over a connection of its own, within its time limit."""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener

from orchestrator.cloud.http_client import (
    MAX_BODY_BYTES,
    HttpClient,
    ResponseTooLargeError,
    open_http_client,
)
from orchestrator.errors import UsageError
from tests.certificates import self_signed

from .scripted import Answer, ScriptedServer, all_but, http, scripted_server

pytestmark = pytest.mark.anyio

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n"
PATIENCE = 30.0
"""Seconds that an answer may take on a busy machine; only a server that hangs takes them."""


async def ask(
    client: HttpClient,
    url: str,
    seconds: float = PATIENCE,
    method: str = "GET",
    content: bytes | None = None,
) -> httpx.Response:
    return await client.send(
        method, url, headers={}, auth=httpx.Auth(), seconds=seconds, content=content
    )


@pytest.mark.parametrize("status", ["302 Found", "429 Too Many", "500 Oops", "503 Busy"])
async def test_no_status_leads_to_a_second_request(
    server: ScriptedServer, client: HttpClient, status: str
) -> None:
    """Redirects and server errors are answers; nothing is sent again and nothing followed."""
    server.will(http(status=status, headers={"Location": f"{server.url}/elsewhere"}))
    answer = await ask(client, server.url)
    assert answer.status_code == int(status[:3])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http("whole"), "whole"),
        (CHUNKED, "one two"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + http("after 100"), "after 100"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + http("after hints"), "after hints"),
        (http("x" * 300_000), "x" * 300_000),
        (Answer(b"HTTP/1.1 200 OK\r\n\r\nbye", "close"), "bye"),
        (Answer(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nbye", "close"), "bye"),
    ],
    ids=["sized", "chunked", "empty", "100", "103", "long", "without a length", "old"],
)
async def test_an_answer_of_any_form_is_read_whole(
    server: ScriptedServer, client: HttpClient, answer: Answer | bytes, said: str
) -> None:
    """Whatever its form, all of an answer is read, and its connection is closed."""
    for _ in range(2):
        server.will(answer)
        assert (await ask(client, server.url)).text == said
    assert server.opened == 2
    await all_but(server, 0)


async def test_an_answer_to_head_has_no_body(server: ScriptedServer, client: HttpClient) -> None:
    """Its Content-Length tells of what it leaves out."""
    server.will(http(headers={"Content-Length": "12", "ETag": '"e"'}))
    answer = await ask(client, server.url, method="HEAD")
    assert (answer.headers["ETag"], answer.headers["Content-Length"]) == ('"e"', "12")
    assert answer.content == b""


async def test_a_second_response_is_given_to_nobody(
    server: ScriptedServer, client: HttpClient
) -> None:
    """What a server sends unasked behind an answer does not answer the next request."""
    server.will(http("first") + http("unasked"), http("second"))
    assert (await ask(client, server.url)).text == "first"
    assert (await ask(client, server.url)).text == "second"


async def test_requests_at_once_have_a_connection_each(
    server: ScriptedServer, client: HttpClient
) -> None:
    """Nothing waits for a connection, and none is left open."""
    server.will(*[http("here")] * 20)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask, client, server.url)
    assert (server.opened, len(server.requests)) == (20, 20)
    await all_but(server, 0)


async def test_a_request_says_that_its_connection_ends(
    server: ScriptedServer, client: HttpClient
) -> None:
    """The server learns who asks, that nothing follows, and that the answer is read as it is."""
    server.will(http())
    await ask(client, server.url)
    headers = server.requests[0].headers
    assert headers["user-agent"] == "tests/1"
    assert headers["connection"] == "close"
    assert headers["accept-encoding"] == "identity"


async def test_cookies_are_not_remembered(server: ScriptedServer, client: HttpClient) -> None:
    """What one answer sets, be it a proxy's, no later request carries."""
    server.will(http(headers={"Set-Cookie": "a=b; Path=/"}), http())
    await ask(client, server.url)
    await ask(client, server.url)
    assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(then="reset"), httpx.ReadError),
        (Answer(then="close"), httpx.RemoteProtocolError),
        (Answer(b"HTTP/1.1 200 OK\r\nContent-Le", "close"), httpx.RemoteProtocolError),
        (Answer(http("half", headers={"Content-Length": "9"}), "close"), httpx.RemoteProtocolError),
        (Answer(http("half", headers={"Content-Length": "9"}), "reset"), httpx.ReadError),
        (Answer(b"not http at all\r\n\r\n", "close"), httpx.RemoteProtocolError),
        (Answer(http("gzip", headers={"Content-Encoding": "gzip"})), httpx.DecodingError),
        (Answer(http("x" * (MAX_BODY_BYTES + 1))), ResponseTooLargeError),
    ],
    ids=["reset", "close", "half a head", "half", "half, reset", "not http", "gzip", "too large"],
)
async def test_a_broken_answer_is_one_request_and_an_exception(
    server: ScriptedServer, client: HttpClient, answer: Answer, error: type[Exception]
) -> None:
    """Where no usable answer comes, an exception says so and nothing is sent again."""
    server.will(answer)
    with pytest.raises(error):
        await ask(client, server.url)
    assert len(server.requests) == 1
    await all_but(server, 0)


@pytest.mark.parametrize("raw", [b"", http("half", headers={"Content-Length": "9"})])
async def test_the_time_limit_spans_the_whole_request(
    server: ScriptedServer, client: HttpClient, raw: bytes
) -> None:
    """A server that hangs, before or within its answer, ends as a read time-out."""
    server.will(Answer(raw, "hang"))
    with pytest.raises(httpx.ReadTimeout):
        await ask(client, server.url, seconds=0.2)
    assert len(server.requests) == 1
    await all_but(server, 0)


async def test_an_answer_that_drips_ends_with_the_time_limit(client: HttpClient) -> None:
    """Each byte comes in time, but not the whole."""

    async def drip(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await stream.send(b"x")
                await anyio.sleep(0.02)

    async with listening(drip) as url:
        with pytest.raises(httpx.ReadTimeout):
            await ask(client, url, seconds=0.5)


@pytest.mark.parametrize("place", ["127.0.0.1:1", "localhost:1"])
async def test_an_unreachable_server_is_a_connect_error(client: HttpClient, place: str) -> None:
    """Where nothing listens nothing was sent; the exception tells it, and where and why."""
    with pytest.raises(httpx.ConnectError, match=f"^{place}: Connection refused$"):
        await ask(client, f"http://{place}")


async def test_a_server_that_never_accepts_is_a_connect_time_out(client: HttpClient) -> None:
    """However short the time limit of the whole request is, nothing of it has left."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        # the system lets in one or two that nobody has accepted yet
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        with pytest.raises(httpx.ConnectTimeout):
            await ask(client, url, seconds=0.5)
        for one in waiting:
            one.close()


async def test_a_handshake_that_hangs_is_a_connect_time_out(client: HttpClient) -> None:
    """A server that accepts, and then says nothing of TLS, has got nothing of the request."""
    received: list[bytes] = []

    async def listen(stream: SocketStream) -> None:
        async with stream:
            received.append(await stream.receive())
            await anyio.sleep_forever()

    async with listening(listen) as url:
        with pytest.raises(httpx.ConnectTimeout):
            await ask(client, url.replace("http://", "https://"), seconds=0.5)
    assert received


async def test_a_handshake_that_breaks_is_a_connect_error(client: HttpClient) -> None:
    """A server that speaks no TLS has got nothing of the request either."""

    async def hang_up(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(hang_up) as url:
        with pytest.raises(httpx.ConnectError):
            await ask(client, url.replace("http://", "https://"))


@pytest.mark.parametrize("scheme", ["ftp", "unix", "httpx"])
async def test_only_http_is_spoken(client: HttpClient, scheme: str) -> None:
    """Another scheme is refused before anybody is called."""
    with pytest.raises(httpx.UnsupportedProtocol):
        await ask(client, f"{scheme}://127.0.0.1")


async def test_what_cannot_be_written_has_not_left(
    server: ScriptedServer, client: HttpClient
) -> None:
    """A header that HTTP has no form for is refused here, and the server hears nothing of it."""
    with pytest.raises(httpx.LocalProtocolError):
        await client.send(
            "GET", server.url, headers={"X-Split": "a\r\nb"}, auth=httpx.Auth(), seconds=PATIENCE
        )
    await all_but(server, 0)
    assert not server.requests


async def test_an_answer_in_hand_is_not_lost_to_a_cancellation(
    server: ScriptedServer, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that is cancelled while the connection is closed still gets the answer."""
    close = httpx.Response.aclose

    async def cancel_and_close(response: httpx.Response) -> None:
        scope.cancel()
        await close(response)

    monkeypatch.setattr(httpx.Response, "aclose", cancel_and_close)
    server.will(http("here"))
    got: list[str] = []
    with anyio.CancelScope() as scope:
        got.append((await ask(client, server.url)).text)
    assert got == ["here"]


async def test_a_cancelled_request_leaves_no_connection_behind(
    server: ScriptedServer, client: HttpClient
) -> None:
    """A caller that stops waiting for an answer closes the connection that it would come over."""
    server.will(Answer(then="hang"), http("next"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, client, server.url)
        with anyio.fail_after(PATIENCE):
            while not server.requests:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    await all_but(server, 0)
    assert (await ask(client, server.url)).text == "next"
    assert server.opened == 2


async def test_proxies_of_the_environment_are_used(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY leads a request to the proxy, with the whole URL as its target."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.will(http())
    async with open_http_client("tests/1") as client:
        await ask(client, "http://cvm.example/")
    assert server.requests[0].target == "http://cvm.example/"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "cvm.localhost"])
async def test_no_proxy_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """An endpoint on loopback is reached directly, whatever proxy the environment names."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with scripted_server() as proxy, open_http_client("tests/1") as client:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(httpx.ConnectError):
            await ask(client, f"http://{host}:1")
        assert proxy.opened == 0


async def test_a_request_may_bypass_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata service is this machine's own, though its name is not loopback."""
    async with scripted_server() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with open_http_client("tests/1") as client:
            with pytest.raises(httpx.ConnectError):
                await client.send(
                    "GET",
                    "http://metadata.invalid",
                    headers={},
                    auth=httpx.Auth(),
                    seconds=PATIENCE,
                    bypass_proxy=True,
                )
        assert proxy.opened == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(status="407 Proxy Authentication Required"), httpx.ProxyError),
        (http(status="502 Bad Gateway"), httpx.ProxyError),
        (Answer(then="close"), httpx.ConnectError),
        (Answer(then="reset"), httpx.ConnectError),
        (Answer(then="hang"), httpx.ConnectTimeout),
    ],
    ids=["407", "502", "close", "reset", "hang"],
)
async def test_a_tunnel_that_is_not_made_has_carried_nothing(
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer | bytes,
    error: type[Exception],
) -> None:
    """Whatever a proxy does with CONNECT, the request itself has not left."""
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    server.will(answer)
    async with open_http_client("tests/1") as client:
        with pytest.raises(error):
            await ask(client, "https://cvm.example/", seconds=2)
    assert [request.method for request in server.requests] == ["CONNECT"]


@pytest.mark.parametrize("url", ["gopher://proxy:1", "http://[::1", "http://proxy:port"])
async def test_a_proxy_that_is_no_url_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The message says which variables to correct, and does not repeat what may be a password."""
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(UsageError, match="HTTPS_PROXY") as caught:
        async with open_http_client("tests/1"):
            pass
    assert url not in str(caught.value)


async def test_https_is_spoken_with_whom_we_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server is spoken to under its certificate's name alone, and if it is trusted."""
    server = ScriptedServer(0)
    async with over_tls(tmp_path, monkeypatch, server.serve) as url:
        async with open_http_client("tests/1") as trusting:
            server.will(http("in secret"))
            assert (await ask(trusting, url)).text == "in secret"
            await _expect_bad_certificate(trusting, url.replace("127.0.0.1", "localhost"))
        monkeypatch.delenv("SSL_CERT_FILE")
        async with open_http_client("tests/1") as other:
            await _expect_bad_certificate(other, url)


async def _expect_bad_certificate(client: HttpClient, url: str) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate") as caught:
        await ask(client, url)
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    assert cause is not None


async def test_a_record_that_cannot_be_read_is_a_read_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TLS does not understand is an answer that did not come, whatever class it has there."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()
            raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's, no query of Django's
            os.write(raw.fileno(), b"this is no record")
            await anyio.sleep_forever()

    async with over_tls(tmp_path, monkeypatch, serve) as url, open_http_client("tests/1") as client:
        with pytest.raises(httpx.ReadError):
            await ask(client, url)


@pytest.mark.parametrize("is_secret", [False, True], ids=["plain", "TLS"])
async def test_a_hidden_second_response_is_given_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_secret: bool
) -> None:
    """A second response behind the first, in whatever packet, is no answer to the next request."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            request = await stream.receive()
            name = request.split(b" ")[1]
            await stream.send(http(name) + http(b"hidden"))
            await stream.send(http(b"unasked"))

    way = over_tls(tmp_path, monkeypatch, serve) if is_secret else listening(serve)
    async with way as url, open_http_client("tests/1") as client:
        for number in range(20):
            assert (await ask(client, f"{url}/{number}")).text == f"/{number}"


@asynccontextmanager
async def listening(serve: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """A server on a free port; its URL."""

    async def carefully(stream: SocketStream) -> None:
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):  # the client has gone
            await serve(stream)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, carefully)
        yield f"http://127.0.0.1:{listener.extra_attributes[SocketAttribute.local_port]()}"
        group.cancel_scope.cancel()


@asynccontextmanager
async def over_tls(
    folder: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[ByteStream], Awaitable[None]]
) -> AsyncIterator[str]:
    """A server that speaks TLS, and that clients opened within trust; its URL."""
    context, certificate = self_signed(folder)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as plain,
        TLSListener(plain, context, standard_compatible=False) as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, serve)
        yield f"https://127.0.0.1:{plain.extra_attributes[SocketAttribute.local_port]()}"
        group.cancel_scope.cancel()
