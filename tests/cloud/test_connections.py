"""Connections that are kept: used again, one request at a time, and let go when they are idle."""

from collections.abc import AsyncIterator
from typing import Literal

import anyio
import httpx
import pytest

from orchestrator.cloud.connections import Connections
from orchestrator.cloud.line import Line
from orchestrator.cloud.transport import Http

from .scripted import Answer, ScriptedServer, all_but, http, scripted_server

pytestmark = pytest.mark.anyio

KEPT = 2
IDLE = 0.3


@pytest.fixture
async def client(anyio_backend: str) -> AsyncIterator[Http]:
    """What sends over two kept connections."""
    async with Connections(most=KEPT, seconds=IDLE, connect_within=5.0) as connections:
        yield Http(connections, "tests/1")


async def get(client: Http, server: ScriptedServer, seconds: float = 5.0) -> None:
    await client.send("GET", server.url, headers={}, auth=httpx.Auth(), seconds=seconds)


async def ask_at_once(client: Http, server: ScriptedServer, count: int) -> None:
    server.will(*[http("here")] * count)
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(get, client, server)


async def test_one_request_after_another_uses_one_connection(
    server: ScriptedServer, client: Http
) -> None:
    """A connection whose answer was read is used again."""
    for _ in range(3):
        await ask_at_once(client, server, 1)
    assert server.opened == 1


async def test_requests_at_once_have_a_connection_each(
    server: ScriptedServer, client: Http
) -> None:
    """Nothing waits for a connection; those above the number that is kept are closed."""
    await ask_at_once(client, server, 5)
    assert server.opened == 5
    await all_but(server, KEPT)
    await ask_at_once(client, server, KEPT)
    assert server.opened == 5


async def test_a_connection_is_not_kept_for_ever(server: ScriptedServer, client: Http) -> None:
    """What was idle for longer than it may be is not used, and closed when another one is freed."""
    await ask_at_once(client, server, 2)
    await anyio.sleep(IDLE + 0.1)
    await ask_at_once(client, server, 1)
    assert server.opened == 3
    await all_but(server, 1)


async def test_each_server_is_reached_over_connections_of_its_own(
    server: ScriptedServer, client: Http
) -> None:
    """A connection to one place is never taken for another one."""
    async with scripted_server() as other:
        for _ in range(2):
            await ask_at_once(client, server, 1)
            await ask_at_once(client, other, 1)
        assert (server.opened, other.opened) == (1, 1)


@pytest.mark.parametrize("then", ["reset", "close", "hang"])
async def test_a_connection_that_failed_is_not_used_again(
    server: ScriptedServer, client: Http, then: Literal["reset", "close", "hang"]
) -> None:
    """After a broken answer, or one that nobody waits for any more, the next request is fresh."""
    half = http("half", headers={"Content-Length": "9"})
    server.will(Answer(half, then))
    with pytest.raises(httpx.TransportError):
        await get(client, server, seconds=0.2)
    await ask_at_once(client, server, 1)
    assert (server.opened, len(server.requests)) == (2, 2)
    await all_but(server, 1)


async def test_a_server_that_hung_up_is_called_anew(server: ScriptedServer, client: Http) -> None:
    """A kept connection that was closed at the other end is not what the next request leaves by."""
    server.will(Answer(http("bye"), "close"))
    await get(client, server)
    await all_but(server, 0)
    await ask_at_once(client, server, 1)
    assert (server.opened, len(server.requests)) == (2, 2)


async def test_an_answer_in_hand_is_not_lost_to_a_cancellation(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is cancelled while a connection is put away still gets what came over it."""
    exchange = Line.exchange

    async def exchange_and_cancel(line: Line, request: httpx.Request) -> httpx.Response:
        answer = await exchange(line, request)
        scope.cancel()
        return answer

    monkeypatch.setattr(Line, "exchange", exchange_and_cancel)
    got: list[httpx.Response] = []
    server.will(Answer(http("here", headers={"Connection": "close"}), "close"))
    async with Connections(most=KEPT, seconds=IDLE, connect_within=5.0) as connections:
        with anyio.CancelScope() as scope:
            request = httpx.Request("GET", server.url)
            got.append(await connections.handle_async_request(request))
    assert [answer.text for answer in got] == ["here"]


async def test_a_cancelled_end_closes_every_connection(server: ScriptedServer) -> None:
    """What was kept is closed even by one who is in a hurry."""
    async with Connections(most=KEPT, seconds=IDLE, connect_within=5.0) as connections:
        await ask_at_once(Http(connections, "tests/1"), server, 2)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await connections.aclose()
        await all_but(server, 0)


async def test_a_cancelled_request_leaves_no_connection_behind(
    server: ScriptedServer, client: Http
) -> None:
    """Whoever stops waiting for an answer closes the connection that it would come over."""
    server.will(Answer(then="hang"))
    with anyio.move_on_after(0.2):
        await get(client, server)
    await all_but(server, 0)
    await ask_at_once(client, server, 1)
    assert server.opened == 2


async def test_a_closed_client_leaves_no_connection_open(server: ScriptedServer) -> None:
    """What was kept is closed with the client."""
    async with Connections(most=KEPT, seconds=IDLE, connect_within=5.0) as connections:
        await ask_at_once(Http(connections, "tests/1"), server, 2)
    await all_but(server, 0)
