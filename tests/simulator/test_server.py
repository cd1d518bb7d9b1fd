"""The HTTP server: connections, closing, and many clients at the same time."""

import socket

import anyio
import httpx
import pytest

from orchestrator.simulator import Fault, Simulator, SimulatorOptions, serve

from .clients import call, code_of, export, make_signed_headers, wait_until

pytestmark = pytest.mark.anyio


async def test_connection_is_kept_alive(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A connection takes several requests, and the ledger has its number."""
    for _ in range(3):
        await call(http, simulator, "DescribeRegions", {})
    async with httpx.AsyncClient(trust_env=False, timeout=60) as other:
        await call(other, simulator, "DescribeRegions", {})
    assert [entry.connection for entry in simulator.ledger] == [1, 1, 1, 2]


async def test_connection_close_gets_a_new_connection(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A client that sends ``Connection: close`` gets it in the answer."""
    for _ in range(2):
        headers = make_signed_headers(simulator, "DescribeRegions", b"{}") | {"Connection": "Close"}
        answer = await http.post(f"{simulator.url}/", content=b"{}", headers=headers)
        assert answer.headers["Connection"] == "close"
        assert code_of(answer.json()["Response"]) is None
    assert [entry.connection for entry in simulator.ledger] == [1, 2]


async def test_closing_does_not_wait_for_clients(http: httpx.AsyncClient) -> None:
    """Idle, half-sent and hanging connections are closed, and the port is free."""
    async with anyio.create_task_group() as tasks:
        # none of the three connections ends by itself: only a close that waits reaches this limit
        with anyio.fail_after(60):
            async with Simulator() as simulator:
                await call(http, simulator, "DescribeRegions", {})
                simulator.set_faults(Fault("hang"))
                tasks.start_soon(_cut_off, simulator)
                half = await anyio.connect_tcp("127.0.0.1", simulator.port)
                await half.send(b"POST / HTTP/1.1\r\nContent-Le")
                await wait_until(lambda: len(simulator.ledger) == 2)
    await half.aclose()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", simulator.port))


async def _cut_off(simulator: Simulator) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:  # noqa: S113 - as above
        with pytest.raises(httpx.TransportError):
            await call(client, simulator, "DescribeRegions", {})


async def test_exception_in_the_block_is_not_wrapped() -> None:
    """An exception within the block does not become an exception group."""
    with pytest.raises(ZeroDivisionError):
        async with Simulator():
            raise ZeroDivisionError


async def test_malformed_request_ends_its_connection_only(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A TLS handshake is answered with 400, and other connections go on."""
    async with await anyio.connect_tcp("127.0.0.1", simulator.port) as client:
        await client.send(b"\x16\x03\x01\x02\x00")
        assert (await client.receive()).startswith(b"HTTP/1.1 400 ")
        with pytest.raises(anyio.EndOfStream):
            await client.receive()
    assert not simulator.ledger
    assert code_of(await call(http, simulator, "DescribeRegions", {})) is None


async def test_serve_calls_ready(http: httpx.AsyncClient) -> None:
    """The caller gets the running simulator, and ends it by cancelling."""
    ready: list[Simulator] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, SimulatorOptions(), ready.append)
        await wait_until(lambda: bool(ready))
        assert code_of(await export(http, ready[0], "img-00000001")) is None
        tasks.cancel_scope.cancel()


async def test_parallel_requests_get_their_own_answers(simulator: Simulator) -> None:
    """Each of 200 exports over 16 connections gets the answer for its own image."""
    simulator.change(cap=None)
    limits = httpx.Limits(max_connections=16)
    answers: dict[str, str] = {}
    async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=30) as http:

        async def one(image: str) -> None:
            answers[image] = (await export(http, simulator, image))["CosPaths"][0]

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(one, f"img-{number:08}")
    assert all(path.startswith(f"/{image}_system_") for image, path in answers.items())
    assert len({entry.request_id for entry in simulator.ledger}) == 200
