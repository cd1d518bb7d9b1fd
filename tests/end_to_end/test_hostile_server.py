"""A server that violates HTTP in many ways: no answer is used for another request."""

import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from orchestrator.job_states import JobState
from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions
from tests.certificates import self_signed
from tests.end_to_end.harness import (
    count_exports,
    make_image_ids,
    make_orchestrator,
    make_requests_for,
    once_each,
    read_jobs,
    read_ledger,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_retries")]

COUNT = 140
GOOD = "answers"
WAYS = {
    GOOD: 60,
    "closes unasked": 6,
    "answers twice": 10,
    "answers with half": 5,
    "answers before it is asked": 8,
    "never ends": 1,
    "continues early": 10,
}
"""What it does with a connection, and how often of a hundred."""

_BACK = 40
"""Number of answers between an answer and its repetition."""


@dataclass
class HostileServer:
    """A server in front of a cloud that damages its answers.

    Args:
        given: answers that were given in full, the oldest first.
    """

    port: int
    chance: random.Random = field(default_factory=lambda: random.Random(11))
    ways: Counter[str] = field(default_factory=Counter)
    given: deque[bytes] = field(default_factory=lambda: deque(maxlen=_BACK))

    @property
    def earlier(self) -> bytes:
        """An answer that its own request has got long ago."""
        return self.given[0] if len(self.given) == _BACK else b""

    async def serve(self, stream: ByteStream) -> None:
        """Serve one connection, and damage some answers."""
        (way,) = self.chance.choices(list(WAYS), list(WAYS.values()))
        self.ways[way] += 1
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                await self._answer(stream, way)

    async def _answer(self, stream: ByteStream, way: str) -> None:
        if way == "closes unasked":
            return
        if way == "answers before it is asked":
            await stream.send(self.earlier)
        if way == "continues early":
            await stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        answer = await self._asked(await _message(stream))
        if way == "never ends":
            await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await stream.send(b"x" * 65_536)
        if way == "answers with half":
            await stream.send(answer[: len(answer) // 2])
            return
        await stream.send(answer + self.earlier if way == "answers twice" else answer)
        if way != "answers before it is asked":  # then its request has taken the earlier one
            self.given.append(answer)

    async def _asked(self, request: bytes) -> bytes:
        async with await anyio.connect_tcp("127.0.0.1", self.port) as cloud:
            await cloud.send(request)
            parts = [part async for part in cloud]
        return b"".join(parts)


async def _message(stream: ByteStream) -> bytes:
    """One request, with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
    while missing > 0:
        more = await stream.receive()
        data, missing = data + more, missing - len(more)
    return data


@asynccontextmanager
async def start_hostile_server(
    cloud: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_secret: bool
) -> AsyncIterator[tuple[str, HostileServer]]:
    """Start the hostile server in front of a cloud; yield its URL."""
    hostile = HostileServer(cloud.port)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as plain,
        anyio.create_task_group() as group,
    ):
        port = plain.extra_attributes[SocketAttribute.local_port]()
        if is_secret:
            context, certificate = self_signed(folder)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            monkeypatch.delenv("SSL_CERT_DIR", raising=False)
            listener = TLSListener(plain, context, standard_compatible=False)
            group.start_soon(listener.serve, hostile.serve)
            yield f"https://127.0.0.1:{port}", hostile
        else:
            group.start_soon(plain.serve, hostile.serve)
            yield f"http://127.0.0.1:{port}", hostile
        group.cancel_scope.cancel()


@pytest.mark.parametrize("is_secret", [False, True], ids=["plain", "TLS"])
async def test_no_answer_is_used_for_another_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str, is_secret: bool
) -> None:
    """After 500 requests of all kinds each job agrees with the cloud's ledger.

    A lost request is sent again after a second of empty look-ups. By default it would take twice
    the longest time to a first trace, which the repeated Date headers make minutes long.
    """
    settings = Settings(cap=None, limits={}, duration=Duration(seconds=0.3))
    async with (
        Simulator(SimulatorOptions(settings=settings)) as cloud,
        start_hostile_server(cloud, tmp_path, monkeypatch, is_secret=is_secret) as (url, hostile),
        make_orchestrator(url, tmp_path, rate=60, max_attempts=50, resend="always") as orchestrator,
    ):
        await orchestrator.enqueue(make_requests_for(make_image_ids(COUNT)))
        with anyio.fail_after(240):
            result = await orchestrator.run()
        found = await read_jobs(orchestrator)
    assert result.counts[JobState.VERIFIED] == COUNT
    assert count_exports(cloud) == once_each(make_image_ids(COUNT))
    assert sum(hostile.ways.values()) > 500
    assert set(hostile.ways) == set(WAYS)
    began = {entry.image_ids: entry for entry in read_ledger(cloud) if entry.accepted}
    for job in found:
        entry = began[job.image_ids]
        assert job.task_id in {None, entry.task_id}
        assert set(job.cos_paths) == set(entry.cos_paths)
        if job.task_id is not None:
            assert job.request_id == entry.request_id
