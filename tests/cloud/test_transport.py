"""One request, once, within its time limit."""

import time

import httpx
import pytest

from orchestrator.cloud.transport import Http, open_http

from .scripted import Answer, ScriptedServer, http

pytestmark = pytest.mark.anyio


class Unsigned(httpx.Auth):
    """Signs nothing."""


async def get(client: Http, url: str, seconds: float = 5.0) -> httpx.Response:
    return await client.send("GET", url, headers={}, auth=Unsigned(), seconds=seconds)


@pytest.mark.parametrize("status", ["302 Found", "429 Too Many", "500 Oops", "503 Busy"])
async def test_no_status_leads_to_a_second_request(
    server: ScriptedServer, client: Http, status: str
) -> None:
    """Redirects and server errors are answers; nothing is sent again and nothing followed."""
    server.will(http(status=status, headers={"Location": f"{server.url}/elsewhere"}))
    answer = await get(client, server.url)
    assert answer.status_code == int(status[:3])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(then="reset"), httpx.ReadError),
        (Answer(then="close"), httpx.RemoteProtocolError),
        (Answer(b"HTTP/1.1 200 OK\r\nContent-Le", "close"), httpx.RemoteProtocolError),
        (Answer(http("half", headers={"Content-Length": "9"}), "close"), httpx.RemoteProtocolError),
        (Answer(http("half", headers={"Content-Length": "9"}), "reset"), httpx.ReadError),
        (Answer(b"not http at all\r\n\r\n", "close"), httpx.RemoteProtocolError),
        (Answer(http("no gzip", headers={"Content-Encoding": "gzip"})), httpx.DecodingError),
    ],
)
async def test_a_broken_answer_is_one_request_and_an_exception(
    server: ScriptedServer, client: Http, answer: Answer, error: type[Exception]
) -> None:
    """Where no whole answer comes, httpx's exception says so and nothing is sent again."""
    server.will(answer)
    with pytest.raises(error):
        await get(client, server.url)
    assert len(server.requests) == 1


async def test_a_stale_connection_is_not_worth_a_second_request(
    server: ScriptedServer, client: Http
) -> None:
    """A kept connection that breaks under the next request is an exception, not a repetition."""
    server.will(http("first"), Answer(then="reset"))
    await get(client, server.url)
    with pytest.raises(httpx.ReadError):
        await get(client, server.url)
    assert len(server.requests) == 2


@pytest.mark.parametrize("raw", [b"", http("half", headers={"Content-Length": "9"})])
async def test_the_time_limit_spans_the_whole_request(
    server: ScriptedServer, client: Http, raw: bytes
) -> None:
    """A server that hangs, before or within its answer, ends as a read time-out."""
    server.will(Answer(raw, "hang"))
    began = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        await get(client, server.url, seconds=0.2)
    assert time.monotonic() - began < 2
    assert len(server.requests) == 1


@pytest.mark.parametrize("place", ["127.0.0.1:1", "localhost:1"])
async def test_an_unreachable_server_is_a_connect_error(client: Http, place: str) -> None:
    """Where nothing listens nothing was sent; the exception tells it, and where and why."""
    with pytest.raises(httpx.ConnectError, match=f"^{place}: Connection refused$"):
        await get(client, f"http://{place}")


async def test_the_client_names_itself(server: ScriptedServer) -> None:
    """Every request carries the User-Agent that the client was made with."""
    server.will(http())
    async with open_http(concurrency=1, user_agent="orchestrator/9") as client:
        await get(client, server.url)
    assert server.requests[0].headers["user-agent"] == "orchestrator/9"


async def test_proxies_of_the_environment_are_used(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY leads a request to the proxy, with the whole URL as its target."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.will(http())
    async with open_http(concurrency=1, user_agent="tests/1") as client:
        await get(client, "http://cvm.example/")
    assert server.requests[0].target == "http://cvm.example/"


async def test_no_proxy_leads_to_this_machine(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint on loopback is reached directly, whatever proxy the environment names."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.will(http())
    async with open_http(concurrency=1, user_agent="tests/1") as client:
        assert (await get(client, server.url)).status_code == 200


async def test_where_no_proxy_is_named_the_way_is_direct(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_PROXY alone names no proxy: no client of httpx, which would introduce itself, is used."""
    monkeypatch.setenv("NO_PROXY", "localhost")
    server.will(http())
    async with open_http(concurrency=1, user_agent="tests/1") as client:
        await get(client, server.url)
    assert "accept-encoding" not in server.requests[0].headers
