"""An httpx transport to a simulated cloud in the same process, for runs in virtual time."""

import random

import anyio
import httpx

from orchestrator.simulator.cloud import Cloud
from orchestrator.simulator.http_connection import Request
from orchestrator.simulator.routing import process, service_for


class InMemoryTransport(httpx.AsyncBaseTransport):
    """Passes requests to a cloud and its answers back, with the latency of a network.

    Args:
        latency: shortest and longest time of one direction, in seconds.
        generator: chooses the time of each direction.
    """

    def __init__(
        self, cloud: Cloud, latency: tuple[float, float], generator: random.Random
    ) -> None:
        self._cloud = cloud
        self._latency = latency
        self._generator = generator

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and return its answer."""
        received = _received(request)
        await anyio.sleep(self._generator.uniform(*self._latency))
        service = service_for(received)
        identified = service.identify(received, connection=1)
        answer = process(self._cloud, service, identified, fault=None)
        assert answer is not None, "without a fault there is an answer"
        await anyio.sleep(self._generator.uniform(*self._latency))
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)


def _received(request: httpx.Request) -> Request:
    path, _, query = request.url.raw_path.decode("latin-1").partition("?")
    return Request(request.method, path, query, dict(request.headers), request.content)
