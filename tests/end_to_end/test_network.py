"""An endpoint that cannot be reached, and is back after a while."""

import asyncio
import random
import socket
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.cli.run_outcome import exit_code
from orchestrator.job_states import JobState
from orchestrator.model import Scope
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Duration, Fault, Refusal, Settings, Simulator, SimulatorOptions
from tests.certificates import self_signed
from tests.end_to_end.harness import (
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_orchestrator,
    make_requests_for,
    once_each,
    print_fault_row,
    read_jobs,
    read_ledger,
    run_to_end,
    wait_until,
    wait_until_stored,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def port() -> int:
    """A free port below the range from which systems assign ports to other programs."""
    while True:
        number = random.randrange(20_000, 30_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", number))
            return number


def cloud_at(port: int, *codes: Refusal) -> Simulator:
    """A cloud without limits on this port."""
    settings = Settings(
        cap=None, limits={}, duration=Duration(seconds=0.2), queue_delay=0.02, codes=codes
    )
    return Simulator(SimulatorOptions(port=port, settings=settings))


async def test_an_endpoint_that_is_not_there_yet(port: int, tmp_path: Path) -> None:
    """Begun while nothing answers, a run waits without spending an attempt, and then does all."""
    said: list[str] = []
    url = f"http://127.0.0.1:{port}"
    async with make_orchestrator(url, tmp_path, notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(12)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_to_end, orchestrator)
            await wait_until(lambda: len(said) > 0)
            async with cloud_at(port) as cloud:
                await wait_until_stored(partial(all_verified, orchestrator, 12))
        assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    assert count_exports(cloud) == once_each(make_image_ids(12))
    lost, found = said
    assert "cannot be reached" in lost
    assert "answers again" in found


async def test_one_request_at_a_time_finds_out(port: int, tmp_path: Path) -> None:
    """In an outage one prober goes at a time; no attempt is spent, and each image is sent once."""
    url = f"http://127.0.0.1:{port}"
    async with make_orchestrator(url, tmp_path, rate=20) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(12)))

        async def probed_twice() -> bool:
            return len(await probes(orchestrator)) >= 2

        async with anyio.create_task_group() as tasks:
            async with cloud_at(port, Refusal("RequestLimitExceeded")) as refusing:
                tasks.start_soon(run_to_end, orchestrator)
                await wait_until(lambda: len(read_ledger(refusing)) > 0)
            await wait_until_stored(probed_twice)
            async with cloud_at(port) as cloud:
                await wait_until_stored(partial(all_verified, orchestrator, 12))
        spans = await probes(orchestrator)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
        assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    assert count_exports(cloud) == once_each(make_image_ids(12))


async def test_a_name_that_is_not_resolved_for_a_while(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without name resolution nothing leaves; it is told once, and nothing is spent by waiting."""
    resolve, failures, said = socket.getaddrinfo, iter(range(3)), list[str]()

    def resolver(host: bytes | str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host != b"cvm.example":  # as anyio hands it over
            return resolve(host, port, *args, **kwargs)
        if next(failures, None) is not None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve("127.0.0.1", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    async with open_store(
        cvm_endpoint=f"http://cvm.example:{cloud.port}", allow_plain_http=True, notify=said.append
    ) as opened:
        result = await enqueue_and_run(opened, make_requests_for(make_image_ids(8)))
        assert {job.attempts for job in await read_jobs(opened)} == {1}
    print_fault_row(
        "a name that is not resolved for a while", said, exit_code(result), result, cloud
    )
    assert (result.counts[JobState.VERIFIED], exit_code(result)) == (8, 0)
    assert count_exports(cloud) == once_each(make_image_ids(8))
    lost, found = said
    assert "Name or service not known" in lost
    assert "answers again" in found


async def test_a_certificate_that_is_not_trusted(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path
) -> None:
    """Keys are not shown to just anybody: the endpoint stops, with what to do; nothing is spent."""
    said: list[str] = []
    async with (
        await asyncio.start_server(hang_up, "127.0.0.1", ssl=self_signed(tmp_path)[0]) as server,
        open_store(cvm_endpoint=f"https://{address_of(server)}", notify=said.append) as opened,
    ):
        result = await enqueue_and_run(opened, make_requests_for(make_image_ids(8)))
        assert {job.attempts for job in await read_jobs(opened)} == {0}
    print_fault_row("a certificate that is not trusted", said, exit_code(result), result, cloud)
    (stop,) = result.blocked
    assert (stop.scope, exit_code(result)) == (Scope.ENDPOINT, 6)
    assert "trust the endpoint's certificate" in stop.remedy
    assert result.counts[JobState.QUEUED] == result.left == 8


async def hang_up(_: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
    """Says nothing to anybody."""
    answer.close()


def address_of(server: asyncio.Server) -> str:
    """Where it listens."""
    host, port = server.sockets[0].getsockname()
    return f"{host}:{port}"


async def all_verified(orchestrator: Orchestrator, count: int) -> bool:
    """Whether so many jobs are verified."""
    return (await orchestrator.status()).counts[JobState.VERIFIED] == count


async def probes(orchestrator: Orchestrator) -> list[tuple[datetime, datetime]]:
    """When the requests left and failed that were sent after the outage was known."""
    spans = []
    for job in await read_jobs(orchestrator):
        story = await orchestrator.show(str(job.id))
        assert story is not None
        spans += [
            (attempt["claimed_at"], attempt["answered_at"])
            for attempt in story.attempts
            if attempt["code"] == "Client.ConnectError"
        ]
    known = min((end for _, end in spans), default=None)
    return sorted(span for span in spans if known is not None and span[0] > known)


async def test_a_gateway_that_fails_for_a_while(open_store: OpenStore, cloud: Simulator) -> None:
    """Where every answer is a gateway's error, one request at a time goes out and none counts."""
    cloud.set_faults(Fault("gateway", action="ExportImages", times=7))
    async with open_store(resend_after=0, max_attempts=3, concurrency=4) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(30)))
    assert result.counts[JobState.VERIFIED] == 30
    assert count_exports(cloud) == once_each(make_image_ids(30))
