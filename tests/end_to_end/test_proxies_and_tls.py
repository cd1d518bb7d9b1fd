"""All requests of a run go through httpx, with and without a proxy."""

import ast
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.job_states import JobState
from orchestrator.simulator import Duration, Fault, Settings, Simulator, SimulatorOptions
from tests.certificates import self_signed
from tests.end_to_end.harness import (
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_orchestrator,
    make_requests_for,
    once_each,
)
from tests.proxy_servers import http_proxy, tls_server

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
OTHER_CLIENTS = {
    "requests",
    "urllib3",
    "aiohttp",
    "http.client",
    "urllib.request",
    "h11",
    "httpcore",
}


def test_no_other_http_client_is_imported() -> None:
    """The product imports httpx, and no other HTTP client or parser."""
    found: set[tuple[str, str]] = set()
    for path in (ROOT / "orchestrator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                # getproxies only reads the environment
                taken = {alias.name for alias in node.names} - {"getproxies"}
                names = [node.module or ""] if taken else []
            found |= {(path.name, name) for name in names if name in OTHER_CLIENTS}
    assert not found


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the requests of each action with an event hook of httpx."""
    counts: Counter[str] = Counter()

    async def count(request: httpx.Request) -> None:
        action = request.headers.get("x-tc-action")
        counts["cos" if action is None else action] += 1

    begin = httpx.AsyncClient.__init__

    def begin_counting(client: httpx.AsyncClient, **options: Any) -> None:
        begin(client, **options, event_hooks={"request": [count]})

    monkeypatch.setattr(httpx.AsyncClient, "__init__", begin_counting)
    return counts


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """A cloud without limits that loses some answers and fails some look-ups."""
    settings = Settings(
        cap=None,
        limits={},
        duration=Duration(seconds=0.2),
        faults=(
            Fault("reset", action="ExportImages", after=True, times=3),
            Fault("gateway", action="cos", times=3, status=503),
            Fault("half", action="DescribeImages", times=1),
        ),
    )
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


def count_requests(cloud: Simulator) -> Counter[str]:
    """Count the requests of each action in the ledger."""
    return Counter("cos" if one.service == "cos" else one.action for one in cloud.ledger)


async def check_all_requests_are_counted(
    cloud: Simulator, counted: Counter[str], url: str, folder: Path
) -> None:
    async with make_orchestrator(
        url, folder, allow_plain_http=True, request_timeout=20
    ) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(10)))
    assert result.counts[JobState.VERIFIED] == 10
    assert count_exports(cloud) == once_each(make_image_ids(10))
    assert counted == count_requests(cloud)
    assert set(counted) == {"GetCallerIdentity", "DescribeImages", "ExportImages", "cos"}


async def test_requests_without_a_proxy(
    cloud: Simulator, counted: Counter[str], tmp_path: Path
) -> None:
    """The hook counts the same requests as the cloud."""
    await check_all_requests_are_counted(cloud, counted, cloud.url, tmp_path)


async def test_requests_through_a_proxy(
    cloud: Simulator, counted: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy from the environment forwards every request, each once."""
    async with http_proxy(cloud.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        await check_all_requests_are_counted(cloud, counted, "http://cloud.example", tmp_path)


async def test_requests_over_tls(
    cloud: Simulator, counted: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook counts the same requests as the cloud over TLS."""
    context, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with tls_server(cloud.port, context) as port:
        await check_all_requests_are_counted(cloud, counted, f"https://127.0.0.1:{port}", tmp_path)


async def test_requests_over_tls_through_a_tunnel(
    cloud: Simulator, counted: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook counts the same requests as the cloud through a tunnel of the proxy."""
    context, certificate = self_signed(tmp_path, name="cloud.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with tls_server(cloud.port, context) as port, http_proxy(port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        await check_all_requests_are_counted(cloud, counted, "https://cloud.example", tmp_path)
