"""A cloud within the same process, on the event loop's clock, and the way to it."""

import random

import anyio
import httpx

from orchestrator.simulator.cloud import Cloud
from orchestrator.simulator.http_connection import Request
from orchestrator.simulator.routing import process, service_for


class InMemory(httpx.AsyncBaseTransport):
    """Carries requests to a cloud and back, as the network would do on a good day.

    Args:
        way: the shortest and the longest time of one way, in seconds.
        chance: tells how long each is.
    """

    def __init__(self, cloud: Cloud, way: tuple[float, float], chance: random.Random) -> None:
        self._cloud = cloud
        self._way = way
        self._chance = chance

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One round trip."""
        asked = _received(request)
        await anyio.sleep(self._chance.uniform(*self._way))
        service = service_for(asked)
        answer = process(self._cloud, service, service.identify(asked, connection=1), fault=None)
        assert answer is not None, "without a fault there is an answer"
        await anyio.sleep(self._chance.uniform(*self._way))
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)


def _received(request: httpx.Request) -> Request:
    path, _, query = request.url.raw_path.decode("latin-1").partition("?")
    return Request(request.method, path, query, dict(request.headers), request.content)
