"""One HTTP request, once, within one time limit: what the clients of both services stand on."""

from collections.abc import Mapping
from urllib.request import getproxies

import anyio
import httpx

from orchestrator.cloud.connections import Connections

_CONNECT_SECONDS = 5.0
_WRITE_SECONDS = 10.0
_POOL_SECONDS = 5.0
# servers close idle connections without notice; a request sent into that moment is in doubt
_KEEPALIVE_SECONDS = 5.0
# whatever proxy the environment names, it does not lead to this machine
_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")


def http_client(*, concurrency: int, user_agent: str) -> httpx.AsyncClient:
    """An HTTP client for both services; proxies come from the environment.

    It keeps up to ``concurrency`` connections open between requests. The caller bounds what is in
    the air, the pool does not: a signature must not age waiting there.
    """
    # a client with a transport of its own would not ask the environment for proxies
    proxied = bool(getproxies())
    return httpx.AsyncClient(
        headers={"User-Agent": user_agent},
        limits=httpx.Limits(
            max_connections=None,
            max_keepalive_connections=concurrency,
            keepalive_expiry=_KEEPALIVE_SECONDS,
        ),
        follow_redirects=False,
        mounts=dict.fromkeys(_LOOPBACK),
        transport=None if proxied else Connections(most=concurrency, seconds=_KEEPALIVE_SECONDS),
    )


async def send(
    http: httpx.AsyncClient,
    method: str,
    url: httpx.URL | str,
    *,
    headers: Mapping[str, str],
    auth: httpx.Auth,
    seconds: float,
    content: bytes | None = None,
) -> httpx.Response:
    """Send exactly one request and read its whole answer, within ``seconds`` in all.

    Raises:
        httpx.HTTPError: no whole answer came; a spent time limit shows as `httpx.ReadTimeout`.
    """
    limits = httpx.Timeout(
        connect=_CONNECT_SECONDS, write=_WRITE_SECONDS, pool=_POOL_SECONDS, read=seconds
    )
    request = http.build_request(method, url, headers=headers, content=content, timeout=limits)
    try:
        with anyio.fail_after(seconds):
            return await http.send(request, auth=auth, follow_redirects=False)
    except TimeoutError as error:
        message = f"no whole answer within {seconds:g} s"
        raise httpx.ReadTimeout(message, request=request) from error
