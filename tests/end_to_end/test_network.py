"""An endpoint that cannot be reached for a while."""

import asyncio
import random
import socket
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.cli.exit_codes import exit_code_of_run
from orchestrator.job_states import JobState
from orchestrator.model import Scope
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Duration, Fault, Refusal, Settings, Simulator, SimulatorOptions
from tests.certificates import self_signed
from tests.end_to_end.harness import (
    OpenStore,
    count_event_kinds,
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


def start_cloud_at(port: int, *codes: Refusal, seed: int = 1) -> Simulator:
    """Make a cloud without limits on this port.

    Two clouds with the same seed give the same RequestIds.
    """
    settings = Settings(
        cap=None, limits={}, duration=Duration(seconds=0.2), queue_delay=0.02, codes=codes
    )
    return Simulator(SimulatorOptions(port=port, settings=settings, seed=seed))


async def test_endpoint_that_is_down_at_the_start(port: int, tmp_path: Path) -> None:
    """A run waits for the endpoint, charges no attempt, and then exports everything."""
    said: list[str] = []
    url = f"http://127.0.0.1:{port}"
    async with make_orchestrator(url, tmp_path, notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(12)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_to_end, orchestrator)
            await wait_until(lambda: len(said) > 0)
            async with start_cloud_at(port) as cloud:
                await wait_until_stored(partial(are_all_verified, orchestrator, 12))
        assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    assert count_exports(cloud) == once_each(make_image_ids(12))
    lost, found = said
    assert "cannot be reached" in lost
    assert "answers again" in found


async def test_outage_leaves_one_prober(port: int, tmp_path: Path) -> None:
    """In an outage one request is sent at a time; no attempt is charged."""
    url = f"http://127.0.0.1:{port}"
    async with make_orchestrator(url, tmp_path, rate=20) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(12)))

        async def probed_twice() -> bool:
            return len(await read_probes(orchestrator)) >= 2

        async with anyio.create_task_group() as tasks:
            async with start_cloud_at(port, Refusal("RequestLimitExceeded")) as refusing:
                tasks.start_soon(run_to_end, orchestrator)
                await wait_until(lambda: len(read_ledger(refusing)) > 0)
            await wait_until_stored(probed_twice)
            async with start_cloud_at(port, seed=2) as cloud:
                await wait_until_stored(partial(are_all_verified, orchestrator, 12))
        spans = await read_probes(orchestrator)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
        # a request in flight when the first cloud ends is a lost answer, and that is charged
        lost = (await count_event_kinds(orchestrator))["unknown"]
        charged = sum(job.attempts for job in await read_jobs(orchestrator))
        assert charged == 12 + lost
    assert count_exports(cloud) == once_each(make_image_ids(12))


async def test_failed_name_resolution_is_waited_for(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed name resolution is reported once, and no attempt is charged.

    Nothing is sent until the name is resolved.
    """
    resolve, failures, said = socket.getaddrinfo, iter(range(2)), list[str]()

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
        "a name that is not resolved for a while", said, exit_code_of_run(result), result, cloud
    )
    assert (result.counts[JobState.VERIFIED], exit_code_of_run(result)) == (8, 0)
    assert count_exports(cloud) == once_each(make_image_ids(8))
    lost, found = said
    assert "Name or service not known" in lost
    assert "answers again" in found


async def test_untrusted_certificate_halts_the_endpoint(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path
) -> None:
    """An untrusted certificate halts the endpoint before a request is sent.

    The halt says what to do.
    """
    said: list[str] = []
    async with (
        await asyncio.start_server(
            close_connection, "127.0.0.1", ssl=self_signed(tmp_path)[0]
        ) as server,
        open_store(cvm_endpoint=f"https://{read_address(server)}", notify=said.append) as opened,
    ):
        result = await enqueue_and_run(opened, make_requests_for(make_image_ids(8)))
        assert {job.attempts for job in await read_jobs(opened)} == {0}
    print_fault_row(
        "a certificate that is not trusted", said, exit_code_of_run(result), result, cloud
    )
    (stop,) = result.blocked
    assert (stop.scope, exit_code_of_run(result)) == (Scope.ENDPOINT, 6)
    assert "the certificate is not trusted: self-signed certificate" in stop.message
    assert "company proxy" in stop.remedy
    assert result.counts[JobState.QUEUED] == result.left == 8


async def close_connection(_: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
    """Close the connection without an answer."""
    answer.close()


def read_address(server: asyncio.Server) -> str:
    """Return the address at which a server listens."""
    host, port = server.sockets[0].getsockname()
    return f"{host}:{port}"


async def are_all_verified(orchestrator: Orchestrator, count: int) -> bool:
    """Return whether this many jobs are verified."""
    return (await orchestrator.status()).counts[JobState.VERIFIED] == count


async def read_probes(orchestrator: Orchestrator) -> list[tuple[datetime, datetime]]:
    """Return the start and end times of requests sent during the outage.

    Requests that were claimed before the first one failed are left out. A probe follows after
    0.5 s.
    """
    spans = []
    for job in await read_jobs(orchestrator):
        story = await orchestrator.show(str(job.id))
        assert story is not None
        spans += [
            (attempt["claimed_at"], attempt["answered_at"])
            for attempt in story.attempts
            if attempt["code"] == "Client.ConnectError"
        ]
    first = min((end for _, end in spans), default=None)
    known = first and first + timedelta(seconds=0.4)
    return sorted(span for span in spans if known is not None and span[0] > known)


async def test_gateway_errors_leave_one_prober(open_store: OpenStore, cloud: Simulator) -> None:
    """If all answers are gateway errors, one request is sent at a time."""
    cloud.set_faults(Fault("gateway", action="ExportImages", times=7))
    async with open_store(resend_after=0, max_attempts=3, concurrency=4) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(30)))
    assert result.counts[JobState.VERIFIED] == 30
    assert count_exports(cloud) == once_each(make_image_ids(30))
