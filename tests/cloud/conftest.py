from collections.abc import AsyncIterator

import pytest

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.http_client import HttpClient, open_http_client

from .scripted import HeldClock, HeldKeys, ScriptedServer, scripted_server


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback is reached directly, whatever proxy this machine uses."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[ScriptedServer]:
    """A server on the loopback whose answers the test writes."""
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def client(anyio_backend: str) -> AsyncIterator[HttpClient]:
    """The HTTP client that both clients stand on."""
    async with open_http_client("tests/1") as client:
        yield client


@pytest.fixture
def clock() -> ServerClock:
    """The server's clock over one that stands still at noon."""
    return ServerClock(HeldClock())


@pytest.fixture
def keys() -> HeldKeys:
    """The source of both clients' keys."""
    return HeldKeys()


@pytest.fixture
def cvm(server: ScriptedServer, client: HttpClient, clock: ServerClock) -> CvmClient:
    """CVM at the scripted server."""
    return CvmClient(client, endpoint=server.url, clock=clock, timeout=60.0)


@pytest.fixture
def cos(
    server: ScriptedServer, client: HttpClient, clock: ServerClock, keys: HeldKeys
) -> CosClient:
    """COS at the scripted server."""
    return CosClient(client, endpoint=server.url, credentials=keys, clock=clock, timeout=60.0)
