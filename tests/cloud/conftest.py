from collections.abc import AsyncIterator

import httpx
import pytest

from orchestrator.cloud.transport import http_client

from .scripted import ScriptedServer, scripted_server


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback is reached directly, whatever proxy this machine uses."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[ScriptedServer]:
    """A server on the loopback whose answers the test writes."""
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def client(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """The HTTP client that both clients stand on."""
    async with http_client(concurrency=4, user_agent="tests/1") as client:
        yield client
