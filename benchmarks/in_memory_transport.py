"""An httpx transport to a simulated cloud in the same process, for runs in virtual time."""

import random
from dataclasses import dataclass

import anyio
import httpx

from orchestrator.simulator.cloud import Cloud
from orchestrator.simulator.http_connection import Request
from orchestrator.simulator.routing import process, service_for


class InMemoryTransport(httpx.AsyncBaseTransport):
    """Passes requests to a cloud and its answers back, with the latency and faults of a network.

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
        """Send one request and return its answer.

        Raises:
            httpx.ReadError, httpx.RemoteProtocolError: a fault of the cloud broke the connection.
        """
        if trace := request.extensions.get("trace"):
            await trace("http11.send_request_headers.started", {"request": _Core(b"POST")})
        received = _received(request)
        service = service_for(received)
        call = service.identify(received, connection=1)
        fault, delay = self._cloud.fault(call.entry), self._cloud.latency(call.entry)
        await anyio.sleep(self._generator.uniform(*self._latency) + delay / 2)
        answer = process(self._cloud, service, call, fault)
        if fault is not None and fault.kind == "hang":
            await anyio.sleep_forever()
        await anyio.sleep(self._generator.uniform(*self._latency) + delay / 2)
        if answer is None:
            raise httpx.ReadError("the connection was reset", request=request)
        if fault is not None and fault.kind == "half":
            raise httpx.RemoteProtocolError("the connection was closed", request=request)
        body = b"" if request.method == "HEAD" else answer.body
        return httpx.Response(answer.status, headers=answer.headers, content=body)


@dataclass(frozen=True)
class _Core:
    """A request as httpcore's trace shows it."""

    method: bytes


def _received(request: httpx.Request) -> Request:
    path, _, query = request.url.raw_path.decode("latin-1").partition("?")
    return Request(request.method, path, query, dict(request.headers), request.content)
