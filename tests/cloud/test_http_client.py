"""Each request is sent once, over its own connection, within its time limit."""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener

from orchestrator.cloud.http_client import (
    MAX_BODY_BYTES,
    HttpClient,
    NotTlsError,
    ProxyHandshakeError,
    ProxyRefusalError,
    ResponseTooLargeError,
    open_http_client,
)
from orchestrator.errors import UsageError
from tests.certificates import self_signed
from tests.cloud.scripted_server import Answer, ScriptedServer, all_closed, http, scripted_server
from tests.proxy_servers import http_proxy, socks_proxy

pytestmark = pytest.mark.anyio

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n"
PASSWORD, QUOTED = "p@ss:w/rd", "p%40ss%3Aw%2Frd"
TIMEOUT = 30.0
"""Seconds that an answer may take on a busy machine; only a server that hangs needs them."""


async def ask(
    client: HttpClient,
    url: str,
    seconds: float = TIMEOUT,
    method: str = "GET",
    content: bytes | None = None,
) -> httpx.Response:
    return await client.send(method, url, headers={}, seconds=seconds, content=content)


@pytest.mark.parametrize("status", ["302 Found", "429 Too Many", "500 Oops", "503 Busy"])
async def test_no_status_causes_a_second_request(
    server: ScriptedServer, client: HttpClient, status: str
) -> None:
    """Redirects and server errors are answers: the client sends no second request."""
    server.respond(http(status=status, headers={"Location": f"{server.url}/elsewhere"}))
    answer = await ask(client, server.url)
    assert answer.status_code == int(status[:3])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "text"),
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
async def test_complete_answer_of_any_form_is_read(
    server: ScriptedServer, client: HttpClient, answer: Answer | bytes, text: str
) -> None:
    """All of an answer is read, and its connection is closed."""
    for _ in range(2):
        server.respond(answer)
        assert (await ask(client, server.url)).text == text
    assert server.opened == 2
    await all_closed(server)


async def test_answer_to_head_has_no_body(server: ScriptedServer, client: HttpClient) -> None:
    """Its Content-Length is the size of the body that is left out."""
    server.respond(http(headers={"Content-Length": "12", "ETag": '"e"'}))
    answer = await ask(client, server.url, method="HEAD")
    assert (answer.headers["ETag"], answer.headers["Content-Length"]) == ('"e"', "12")
    assert answer.content == b""


async def test_unrequested_response_is_discarded(
    server: ScriptedServer, client: HttpClient
) -> None:
    """A second response to one request is not given to the next request."""
    server.respond(http("first") + http("unasked"), http("second"))
    assert (await ask(client, server.url)).text == "first"
    assert (await ask(client, server.url)).text == "second"


async def test_concurrent_requests_have_a_connection_each(
    server: ScriptedServer, client: HttpClient
) -> None:
    """Nothing waits for a connection, and none stays open."""
    server.respond(*[http("here")] * 20)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask, client, server.url)
    assert (server.opened, len(server.requests)) == (20, 20)
    await all_closed(server)


async def test_request_closes_its_connection(server: ScriptedServer, client: HttpClient) -> None:
    """The headers name the client, end the connection and forbid compression."""
    server.respond(http())
    await ask(client, server.url)
    headers = server.requests[0].headers
    assert headers["user-agent"] == "tests/1"
    assert headers["connection"] == "close"
    assert headers["accept-encoding"] == "identity"


async def test_cookies_are_not_stored(server: ScriptedServer, client: HttpClient) -> None:
    """A cookie that an answer sets is not sent with a later request."""
    server.respond(http(headers={"Set-Cookie": "a=b; Path=/"}), http())
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
async def test_broken_answer_is_one_request_and_an_exception(
    server: ScriptedServer, client: HttpClient, answer: Answer, error: type[Exception]
) -> None:
    """Without a usable answer an exception is raised and nothing is sent again."""
    server.respond(answer)
    with pytest.raises(error):
        await ask(client, server.url)
    assert len(server.requests) == 1
    await all_closed(server)


@pytest.mark.parametrize("raw", [b"", http("half", headers={"Content-Length": "9"})])
async def test_time_limit_includes_the_whole_request(
    server: ScriptedServer, client: HttpClient, raw: bytes
) -> None:
    """A server that hangs, before or within its answer, causes a read time-out."""
    server.respond(Answer(raw, "hang"))
    with pytest.raises(httpx.ReadTimeout):
        await ask(client, server.url, seconds=0.2)
    assert len(server.requests) == 1
    await all_closed(server)


async def test_slow_answer_ends_with_the_time_limit(client: HttpClient) -> None:
    """Each byte comes in time, but the whole answer does not."""

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


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1"])
async def test_unreachable_server_is_a_connect_error(client: HttpClient, host: str) -> None:
    """If nothing listens, nothing was sent; the message says where and why."""
    with pytest.raises(httpx.ConnectError, match=f"^{host}: Connection refused$"):
        await ask(client, f"http://{host}")


async def test_server_that_never_accepts_is_a_connect_time_out(client: HttpClient) -> None:
    """If the time limit expires while connecting, the error is ConnectTimeout.

    Nothing was sent.
    """
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        # the system completes one or two connections before the server accepts them
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        with pytest.raises(httpx.ConnectTimeout):
            await ask(client, url, seconds=0.5)
        for one in waiting:
            one.close()


async def test_hanging_tls_handshake_is_a_connect_time_out(client: HttpClient) -> None:
    """A server that accepts but never answers the handshake has received no request."""
    received: list[bytes] = []

    async def listen(stream: SocketStream) -> None:
        async with stream:
            received.append(await stream.receive())
            await anyio.sleep_forever()

    async with listening(listen) as url:
        with pytest.raises(httpx.ConnectTimeout):
            await ask(client, url.replace("http://", "https://"), seconds=2.0)
    assert received


async def test_broken_tls_handshake_is_a_connect_error(client: HttpClient) -> None:
    """A server that does not speak TLS has received no request."""

    async def answer_plainly(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(answer_plainly) as url:
        with pytest.raises(NotTlsError) as caught:
            await ask(client, url.replace("http://", "https://"))
    where = url.removeprefix("http://")
    assert str(caught.value) == f"{where}: what answers does not speak TLS"


@pytest.mark.parametrize("scheme", ["ftp", "unix", "httpx"])
async def test_other_schemes_are_refused(client: HttpClient, scheme: str) -> None:
    """A URL that is not HTTP is refused before a connection is opened."""
    with pytest.raises(httpx.UnsupportedProtocol):
        await ask(client, f"{scheme}://127.0.0.1")


async def test_invalid_header_is_not_sent(server: ScriptedServer, client: HttpClient) -> None:
    """A header that HTTP does not allow is refused, and the server receives nothing."""
    with pytest.raises(httpx.LocalProtocolError):
        await client.send("GET", server.url, headers={"X-Split": "a\r\nb"}, seconds=TIMEOUT)
    await all_closed(server)
    assert not server.requests


async def test_cancellation_does_not_discard_a_read_answer(
    server: ScriptedServer, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that is cancelled while the connection closes still gets the answer."""
    close = httpx.Response.aclose

    async def cancel_and_close(response: httpx.Response) -> None:
        scope.cancel()
        await close(response)

    monkeypatch.setattr(httpx.Response, "aclose", cancel_and_close)
    server.respond(http("here"))
    got: list[str] = []
    with anyio.CancelScope() as scope:
        got.append((await ask(client, server.url)).text)
    assert got == ["here"]


async def test_cancelled_request_closes_its_connection(
    server: ScriptedServer, client: HttpClient
) -> None:
    """A caller that stops waiting closes the connection of its request."""
    server.respond(Answer(then="hang"), http("next"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, client, server.url)
        with anyio.fail_after(TIMEOUT):
            while not server.requests:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    await all_closed(server)
    assert (await ask(client, server.url)).text == "next"
    assert server.opened == 2


async def test_proxy_of_the_environment_is_used(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY sends a request to the proxy, with the whole URL as its target."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.respond(http())
    async with open_http_client("tests/1") as client:
        await ask(client, "http://cvm.example/")
    assert server.requests[0].target == "http://cvm.example/"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "cvm.localhost"])
async def test_loopback_is_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """A loopback endpoint is connected directly, even if the environment has a proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with scripted_server() as proxy, open_http_client("tests/1") as client:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(httpx.ConnectError):
            await ask(client, f"http://{host}:1")
        assert proxy.opened == 0


async def test_client_can_bypass_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata service is this machine's own, though its name is not loopback."""
    async with scripted_server() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with open_http_client("tests/1", uses_proxies=False) as client:
            with pytest.raises(httpx.ConnectError):
                await ask(client, "http://metadata.invalid")
        assert proxy.opened == 0


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (http(status="407 Who Are You"), ProxyRefusalError, "407 Who Are You"),
        (http(status="403 Forbidden"), ProxyRefusalError, "403 Forbidden"),
        (http(status="502 Bad Gateway"), httpx.ProxyError, "502 Bad Gateway"),
        (http(status="503 Busy"), httpx.ProxyError, "503 Busy"),
        (http(status="504 Gateway Timeout"), httpx.ProxyError, "504 Gateway Timeout"),
        (http("<html>", status="302 Found"), httpx.ProxyError, "302 Found"),
        (Answer(http("<html>log in"), "close"), NotTlsError, "page instead of a connection"),
        (Answer(http("<html>log in"), "hang"), NotTlsError, "page instead of a connection"),
        (
            Answer(http(headers={"Content-Type": "text/html"}) + b"<html>", "close"),
            NotTlsError,
            "page instead of a connection",
        ),
        (
            Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "close"),
            httpx.ConnectError,
            "the TLS connection was closed unexpectedly",
        ),
        (Answer(then="close"), httpx.ConnectError, ""),
        (Answer(then="reset"), httpx.ConnectError, ""),
        (Answer(then="hang"), httpx.ConnectTimeout, "no connection in time"),
    ],
    ids=[
        "407",
        "403",
        "502",
        "503",
        "504",
        "302",
        "page",
        "page-open",
        "HTML",
        "no-page",
        "close",
        "reset",
        "hang",
    ],
)
async def test_failed_tunnel_has_sent_nothing(
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer | bytes,
    error: type[Exception],
    text: str,
) -> None:
    """If a tunnel fails, no request was sent, and the message names the proxy."""
    address = f"127.0.0.1:{server.port}"
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{QUOTED}@{address}")
    server.respond(answer)
    async with open_http_client("tests/1") as client:
        with pytest.raises(error) as caught:
            await ask(client, "https://cvm.example/", seconds=2)
    assert [request.method for request in server.requests] == ["CONNECT"]
    assert str(caught.value).startswith(f"cvm.example through the proxy {address} (HTTPS_PROXY): ")
    assert text in str(caught.value)
    if isinstance(caught.value, ProxyRefusalError):
        assert PASSWORD not in caught.value.remedy
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(("login", "verb"), [("", "Write a"), ("user:other@", "Correct the")])
async def test_a_missing_login_is_not_called_wrong(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, login: str, verb: str
) -> None:
    """Without a login the remedy says how to write one; with one, that it is wrong."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{login}127.0.0.1:{server.port}")
    server.respond(http(status="407 Login"))
    async with open_http_client("tests/1") as client:
        with pytest.raises(ProxyRefusalError) as caught:
            await ask(client, "https://cvm.example/")
    assert caught.value.remedy.startswith(f"{verb} user name and password in")
    assert "HTTPS_PROXY" in caught.value.remedy
    assert "other" not in caught.value.remedy


@pytest.mark.parametrize(
    ("offered", "schemes"),
    [
        (("Negotiate", "NTLM"), "Negotiate and NTLM"),
        (("NTLM TlRMTVNTUAAC, Negotiate",), "NTLM and Negotiate"),
        (('Digest realm="Corp, Basic", nonce = "x,y", qop=auth',), "Digest"),
        (("Negotiate", 'Basic realm="Corp"'), None),
        (('NTLM, basic realm="Corp"',), None),
    ],
)
async def test_a_login_that_is_not_basic_needs_a_local_proxy(
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    offered: tuple[str, ...],
    schemes: str | None,
) -> None:
    """Another password would not help where the proxy does not offer Basic."""
    address = f"127.0.0.1:{server.port}"
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:other@{address}")
    lines = "".join(f"Proxy-Authenticate: {one}\r\n" for one in offered)
    server.respond(f"HTTP/1.1 407 Login\r\n{lines}Content-Length: 0\r\n\r\n".encode())
    async with open_http_client("tests/1") as client:
        with pytest.raises(ProxyRefusalError) as caught:
            await ask(client, "https://cvm.example/")
    remedy = caught.value.remedy
    assert ("user name and password" in remedy) == (schemes is None)
    if schemes is not None:
        assert remedy == (
            f"Run a local proxy such as px or cntlm, which logs in to {address}, and name it in "
            f"HTTPS_PROXY: this proxy offers {schemes}, and only Basic is supported."
        )


@pytest.mark.parametrize(
    ("variables", "url", "is_told"),
    [
        ({"HTTP_PROXY": "http://127.0.0.1:1"}, "https://cvm.invalid/", True),
        ({"http_proxy": "http://127.0.0.1:1"}, "https://cvm.invalid/", True),
        ({}, "https://cvm.invalid/", False),
        (
            {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "invalid"},
            "https://cvm.invalid/",
            False,
        ),
        ({"HTTP_PROXY": "http://127.0.0.1:1"}, "https://127.0.0.1:1/", False),
        ({"HTTP_PROXY": "http://127.0.0.1:1"}, "http://cvm.invalid/", False),
        (
            {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"},
            "https://cvm.invalid/",
            False,
        ),
    ],
)
async def test_a_proxy_for_plain_requests_alone_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, *, is_told: bool
) -> None:
    """Many set HTTP_PROXY alone, and take it for the proxy of every request."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with open_http_client("tests/1") as client:
        with pytest.raises((httpx.ConnectError, httpx.ProxyError)) as caught:
            await ask(client, url)
    name = next(iter(variables), "")
    hint = f"; the proxy in {name} is not used for https:// endpoints: if this network needs it, "
    assert (hint + "set HTTPS_PROXY too" in str(caught.value)) == is_told
    assert ("HTTPS_PROXY" in str(caught.value)) == is_told


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """It is the proxy that cannot be reached, and not the server behind it."""
    monkeypatch.setenv("https_proxy", f"{scheme}://127.0.0.1:1")
    async with open_http_client("tests/1", "https://cvm.example") as client:
        with pytest.raises(httpx.ProxyError) as caught:
            await ask(client, "https://cvm.example/")
    where = "cvm.example through the proxy 127.0.0.1:1 (https_proxy)"
    assert str(caught.value) == f"{where}: Connection refused"


@pytest.mark.parametrize("answer", [Answer(then="hang"), http(status="400 Bad Request")])
async def test_proxy_without_tls_is_explained(
    monkeypatch: pytest.MonkeyPatch, answer: Answer | bytes
) -> None:
    """The usual mistake is https:// in the URL of a proxy that speaks plain HTTP."""
    raw = answer.raw if isinstance(answer, Answer) else answer

    async def respond(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(raw)
            await stream.receive()

    async with listening(respond) as url:
        address = url.removeprefix("http://")
        monkeypatch.setenv("HTTPS_PROXY", f"https://user:{QUOTED}@{address}")
        async with open_http_client("tests/1") as client:
            with pytest.raises(ProxyHandshakeError) as caught:
                await ask(client, "https://cvm.example/", seconds=1)
    text = str(caught.value)
    assert text.startswith(f"cvm.example through the proxy {address} (HTTPS_PROXY): ")
    assert text.endswith("if this proxy speaks plain HTTP, its URL must begin with http://")
    assert PASSWORD not in text


async def test_server_without_tls_behind_a_proxy_with_tls_is_no_fault_of_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake with the proxy is complete when that with the server fails."""
    context, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def answer_plainly(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(http(status="400 Bad Request"))
            await stream.receive()

    async with (
        listening(answer_plainly) as url,
        http_proxy(httpx.URL(url).port or 0, context=context) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"https://{proxy.address}")
        async with open_http_client("tests/1") as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await ask(client, "https://cvm.example/")
    assert "plain HTTP" not in str(caught.value)


async def test_lost_answer_names_the_proxy(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the request was sent its effect is unknown, with a proxy as without one."""
    monkeypatch.setenv("ALL_PROXY", server.url)
    where = rf"^cvm\.example through the proxy 127\.0\.0\.1:{server.port} \(ALL_PROXY\): "
    async with open_http_client("tests/1") as client:
        server.respond(Answer(then="close"), Answer(then="hang"))
        with pytest.raises(httpx.RemoteProtocolError, match=where):
            await ask(client, "http://cvm.example/")
        with pytest.raises(httpx.ReadTimeout, match=where):
            await ask(client, "http://cvm.example/", seconds=0.5)


async def test_plain_request_that_needs_a_login_is_refused(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For GET and HEAD, 407 is a refusal of the proxy; for POST, it is an answer.

    Only a proxy answers with 407. A GET or HEAD had no effect, but a POST was sent.
    """
    monkeypatch.setenv("HTTP_PROXY", server.url)
    async with open_http_client("tests/1") as client:
        server.respond(*3 * [http(status="407 Login")], http(status="403 Forbidden"))
        for method in ("GET", "HEAD"):
            with pytest.raises(ProxyRefusalError, match="407 Login"):
                await client.send(method, "http://cos.example/", headers={}, seconds=5)
        post = await client.send("POST", "http://cvm.example/", headers={}, seconds=5, content=b"x")
        assert post.status_code == 407
        # this may be the answer of the server
        answer = await client.send("GET", "http://cos.example/", headers={}, seconds=5)
        assert answer.status_code == 403


async def test_answer_within_a_tunnel_is_not_the_proxys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 407 of the server itself is an answer: the request has arrived."""
    server = ScriptedServer(0)
    server.respond(http(status="407 Odd"))
    async with (
        over_tls(tmp_path, monkeypatch, server.serve) as url,
        http_proxy(httpx.URL(url).port or 0) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        monkeypatch.setattr("orchestrator.cloud.proxies.is_loopback", lambda _host: False)
        async with open_http_client("tests/1", url) as client:
            assert (await ask(client, url)).status_code == 407
    assert len(proxy.asked) == len(server.requests) == 1


@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h"])
async def test_login_in_the_url_is_sent_and_not_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Each kind of proxy gets the login, and no log or error shows the password.

    The proxy opens a tunnel, in which the server's own certificate is verified.
    """
    caplog.set_level("DEBUG")
    server = ScriptedServer(0)
    server.respond(http("over TLS"))
    login = f"CORP\\us er:{PASSWORD}"
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(over_tls(tmp_path, monkeypatch, server.serve))
        port, context = httpx.URL(url).port or 0, None
        if kind == "https":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
        proxy = await stack.enter_async_context(
            socks_proxy(port, login=login)
            if kind.startswith("socks")
            else http_proxy(port, login=login, context=context)
        )
        monkeypatch.setenv("HTTPS_PROXY", f"{kind}://CORP%5Cus%20er:{QUOTED}@{proxy.address}")
        # which httpcore does not read by itself
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.environ["SSL_CERT_FILE"])
        monkeypatch.delenv("SSL_CERT_FILE")
        # the certificate is for 127.0.0.1, which is otherwise reached directly
        monkeypatch.setattr("orchestrator.cloud.proxies.is_loopback", lambda _host: False)
        async with open_http_client("tests/1", url) as client:
            assert (await ask(client, url)).text == "over TLS"
            assert proxy.asked == [url.removeprefix("https://")]
            monkeypatch.setenv("HTTPS_PROXY", f"{kind}://other:{QUOTED}@{proxy.address}")
        async with open_http_client("tests/1", url) as client:
            with pytest.raises(ProxyRefusalError) as caught:
                await ask(client, url)
    assert caught.value.remedy.startswith("Correct the user name and password in HTTPS_PROXY")
    for text in (caplog.text, str(caught.value)):
        assert PASSWORD not in text
        assert QUOTED not in text


@pytest.mark.parametrize(
    ("login", "reply", "error", "text"),
    [
        ("user:secret", 0, ProxyRefusalError, "NO ACCEPTABLE METHODS"),
        ("", 2, ProxyRefusalError, "not allowed by ruleset"),
        ("", 4, httpx.ProxyError, "Host unreachable"),
        ("", 5, httpx.ProxyError, "Connection refused"),
    ],
)
async def test_refusal_of_a_socks_proxy(
    monkeypatch: pytest.MonkeyPatch, login: str, reply: int, error: type[Exception], text: str
) -> None:
    """A missing login and a forbidden host need an operator; other failures may pass."""
    async with socks_proxy(1, login=login, reply=reply) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{proxy.address}")
        async with open_http_client("tests/1") as client:
            with pytest.raises(httpx.ProxyError, match=text) as caught:
                await ask(client, "https://cvm.example/")
    assert type(caught.value) is error
    assert f"{proxy.address} (ALL_PROXY)" in str(caught.value)


@pytest.mark.parametrize("answer", [Answer(then="close"), http(status="400 Bad"), b"\x04\x00"])
async def test_server_that_is_no_socks_proxy(
    monkeypatch: pytest.MonkeyPatch, answer: Answer | bytes
) -> None:
    """What httpcore does not expect is an error of the proxy, and nothing was sent."""
    raw = answer.raw if isinstance(answer, Answer) else answer

    async def respond(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            if raw:
                await stream.send(raw)

    async with listening(respond) as url:
        monkeypatch.setenv("ALL_PROXY", url.replace("http:", "socks5:"))
        async with open_http_client("tests/1") as client:
            with pytest.raises(
                httpx.ProxyError, match=r"\(ALL_PROXY\): no valid answer of SOCKS 5"
            ):
                await ask(client, "https://cvm.example/")


async def test_unusable_proxy_is_found_before_the_first_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unusable proxy is an error only for the endpoints that need it.

    The names of endpoints may have placeholders.
    """
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy:1")
    monkeypatch.setenv("NO_PROXY", "sts.example,.myqcloud.com")
    exempted = ("https://sts.example", "https://{bucket}.cos.{region}.myqcloud.com", "http://cvm")
    async with open_http_client("tests/1", *exempted):
        pass
    with pytest.raises(UsageError, match="HTTPS_PROXY"):
        async with open_http_client("tests/1", *exempted, "https://cvm.{region}.example"):
            pass


async def test_variables_that_concern_no_request_are_ignored(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint on loopback without TLS needs neither proxy nor certificates."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.setenv(name, "[rubbish://")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "/not/there")
    server.respond(http("here"))
    async with open_http_client("tests/1", server.url) as client:
        assert (await ask(client, server.url)).text == "here"
    with pytest.raises(UsageError, match="SSL_CERT_FILE names /not/there"):
        async with open_http_client("tests/1", "https://127.0.0.1"):
            pass


async def test_tls_server_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is used only if its certificate is trusted and bears its name."""
    server = ScriptedServer(0)
    async with over_tls(tmp_path, monkeypatch, server.serve) as url:
        async with open_http_client("tests/1") as trusting:
            server.respond(http("over TLS"))
            assert (await ask(trusting, url)).text == "over TLS"
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


async def test_invalid_tls_record_is_a_read_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ssl.SSLError while reading becomes httpx's exception for a lost answer."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()
            raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not a Django query
            os.write(raw.fileno(), b"this is no record")
            await anyio.sleep_forever()

    async with over_tls(tmp_path, monkeypatch, serve) as url, open_http_client("tests/1") as client:
        with pytest.raises(httpx.ReadError):
            await ask(client, url)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
async def test_hidden_second_response_is_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tls: bool
) -> None:
    """A second response in the same packet is not given to the next request."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            request = await stream.receive()
            name = request.split(b" ")[1]
            await stream.send(http(name) + http(b"hidden"))
            await stream.send(http(b"unasked"))

    running = over_tls(tmp_path, monkeypatch, serve) if is_tls else listening(serve)
    async with running as url, open_http_client("tests/1") as client:
        for number in range(20):
            assert (await ask(client, f"{url}/{number}")).text == f"/{number}"


@asynccontextmanager
async def listening(serve: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """Run a server on a free port; return its URL."""

    async def serve_until_closed(stream: SocketStream) -> None:
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):  # by the client
            await serve(stream)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, serve_until_closed)
        yield f"http://127.0.0.1:{listener.extra_attributes[SocketAttribute.local_port]()}"
        group.cancel_scope.cancel()


@asynccontextmanager
async def over_tls(
    folder: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[ByteStream], Awaitable[None]]
) -> AsyncIterator[str]:
    """Run a TLS server that new clients trust; return its URL."""
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
