from collections.abc import AsyncIterator

import pytest

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.http_client import HttpClient, open_http_client
from tests.cloud.scripted_server import (
    FixedClock,
    FixedCredentials,
    ScriptedServer,
    scripted_server,
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxy settings of this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[ScriptedServer]:
    """Start a server on loopback whose answers the test writes."""
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def client(anyio_backend: str) -> AsyncIterator[HttpClient]:
    """Open the HTTP client of both services."""
    async with open_http_client("tests/1") as client:
        yield client


@pytest.fixture
def clock() -> ServerClock:
    """Return a server's clock; this machine's clock stays at noon."""
    return ServerClock(FixedClock())


@pytest.fixture
def credentials() -> FixedCredentials:
    """Return the source of the COS client's credential."""
    return FixedCredentials()


@pytest.fixture
def cvm(server: ScriptedServer, client: HttpClient, clock: ServerClock) -> CvmClient:
    """Return a CVM client of the scripted server."""
    return CvmClient(client, endpoint=server.url, clock=clock, timeout=60.0)


@pytest.fixture
def cos(
    server: ScriptedServer, client: HttpClient, clock: ServerClock, credentials: FixedCredentials
) -> CosClient:
    """Return a COS client of the scripted server."""
    return CosClient(
        client, endpoint=server.url, credentials=credentials, clock=clock, timeout=60.0
    )
