"""One HTTP request, once, within one time limit: what the clients of both services stand on."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.request import getproxies

import anyio
import httpx

from orchestrator.cloud.connections import Connections

_CONNECT_SECONDS = 5.0
# servers close idle connections without notice; a request sent into that moment is in doubt
_KEEPALIVE_SECONDS = 5.0
# whatever proxy the environment names, it does not lead to this machine
_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")
_PROXIED = {"http", "https", "all"}
"""Kinds of proxies that the environment may name; it may also name where none is wanted."""


class Http:
    """Sends requests, each of them once: nothing is followed, repeated or remembered.

    A client of httpx could do more for a request, and where none of it is wanted that is half of
    what the request costs; so requests go to a transport of httpx as they are.

    Args:
        user_agent: the name by which every request introduces this program.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, user_agent: str) -> None:
        self._transport = transport
        self._user_agent = user_agent

    async def send(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        headers: Mapping[str, str],
        auth: httpx.Auth,
        seconds: float,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Send exactly one request and read its whole answer, within ``seconds`` in all.

        Args:
            auth: signs the request, and asks for nothing more.

        Raises:
            httpx.HTTPError: no whole answer came; a spent time limit shows as `httpx.ReadTimeout`,
                or where connecting alone took too long, as `httpx.ConnectTimeout`.
        """
        request = httpx.Request(
            method,
            url,
            headers={"User-Agent": self._user_agent, **headers},
            content=content,
        )
        signed = next(auth.auth_flow(request))
        try:
            with anyio.fail_after(seconds):
                return await self._transport.handle_async_request(signed)
        except TimeoutError as error:
            message = f"no whole answer within {seconds:g} s"
            raise httpx.ReadTimeout(message, request=request) from error


@asynccontextmanager
async def open_http(*, concurrency: int, user_agent: str) -> AsyncIterator[Http]:
    """Opens the way to both services; proxies come from the environment.

    It keeps up to ``concurrency`` connections open between requests. The caller bounds what is in
    the air, nothing here does: a signature must not age waiting.
    """
    way = _by_proxies(concurrency) if _PROXIED & getproxies().keys() else open_directly(concurrency)
    async with way as transport:
        yield Http(transport, user_agent)


def open_directly(concurrency: int) -> Connections:
    """The way on which no proxy stands."""
    return Connections(
        most=concurrency, seconds=_KEEPALIVE_SECONDS, connect_within=_CONNECT_SECONDS
    )


_LIMITS = httpx.Timeout(connect=_CONNECT_SECONDS, write=10.0, pool=5.0, read=None)
"""Of a client of httpx; that of a whole request stands above them."""


class _Proxied(httpx.AsyncBaseTransport):
    """Leaves it to a client of httpx which proxy leads to which place."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and read its answer."""
        request.extensions["timeout"] = _LIMITS.as_dict()
        try:
            return await self._client.send(request)
        except ssl.SSLError as error:  # as it comes from below, after the handshake
            raise httpx.ReadError(str(error), request=request) from error


@asynccontextmanager
async def _by_proxies(concurrency: int) -> AsyncIterator[_Proxied]:
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=concurrency,
        keepalive_expiry=_KEEPALIVE_SECONDS,
    )
    mounts = dict.fromkeys(_LOOPBACK)
    async with httpx.AsyncClient(limits=limits, mounts=mounts, follow_redirects=False) as client:
        yield _Proxied(client)
