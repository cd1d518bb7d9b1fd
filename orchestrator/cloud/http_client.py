"""Send each HTTP request exactly once through httpx, within one time limit.

Every request gets a connection of its own. On a kept-alive connection httpx would give a second,
unrequested response to the next request, and that would record another job's TaskId. It would also
send a request into a connection that the server is closing, which leaves its effect unknown.
"""

import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from orchestrator.cloud.tls_trust import trusted_certificates
from orchestrator.errors import UsageError
from orchestrator.loopback import is_loopback

MAX_BODY_BYTES = 8 * 2**20
"""A listing of 1,000 keys of 850 percent-encoded bytes takes about 3 MiB; nothing takes more."""

_CONNECT_TIMEOUT = 5.0
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=0)
"""The callers limit the requests in flight. A limited pool would leak a connection for each request
that is cancelled while it waits, and a signature must not age in a queue."""


class ResponseTooLargeError(httpx.TransportError):
    """The body of a response exceeds `MAX_BODY_BYTES`."""


class HttpClient:
    """Send requests: no redirects, no retries, no cookies, no connection reuse.

    Args:
        proxied: follows the proxy settings of the environment.
        direct: ignores them; used for loopback addresses.
    """

    def __init__(self, proxied: httpx.AsyncClient, direct: httpx.AsyncClient) -> None:
        self._proxied = proxied
        self._direct = direct
        self._headers = dict(proxied.headers)
        self._timeout = proxied.timeout.as_dict()

    async def send(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        headers: Mapping[str, str],
        seconds: float,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Send one request and read the whole response within ``seconds`` in all.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError: no byte of the request was
                sent.
            httpx.LocalProtocolError, httpx.UnsupportedProtocol: it cannot be sent at all.
            httpx.HTTPError: any other error; the request may have arrived.
        """
        progress = _Progress()
        # not `build_request`: it merges headers, cookies and parameters anew for each request
        request = httpx.Request(
            method,
            url,
            headers={**self._headers, **headers},
            content=content,
            extensions={"timeout": self._timeout, "trace": progress.trace},
        )
        client = self._direct if is_loopback(request.url.host) else self._proxied
        try:
            with anyio.fail_after(seconds):
                return await _exchange(client, request)
        except (httpx.ProxyError, httpx.LocalProtocolError, httpx.UnsupportedProtocol):
            raise  # the exception class already shows that nothing was sent
        except (TimeoutError, httpx.TransportError, OSError) as error:
            if not progress.has_begun:
                host = request.url.netloc.decode()
                if isinstance(error, TimeoutError | httpx.TimeoutException):
                    message = f"{host}: no connection in time"
                    raise httpx.ConnectTimeout(message, request=request) from error
                message = f"{host}: {_reason(error)}"
                raise httpx.ConnectError(message, request=request) from error
            if isinstance(error, TimeoutError):
                message = f"no complete response within {seconds:g} s"
                raise httpx.ReadTimeout(message, request=request) from error
            if isinstance(error, httpx.TransportError):
                raise
            # an ssl.SSLError, which httpx lets through
            raise httpx.ReadError(_reason(error), request=request) from error
        finally:
            if not progress.has_begun:
                await progress.close_socket()


class _Progress:
    """How far a request has got, from httpx's trace events.

    Attributes:
        has_begun: sending of its headers has begun, so it may take effect.
    """

    def __init__(self) -> None:
        self.has_begun = False
        self._stream: Any = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Receive one event, as httpx calls it."""
        if event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "http11.send_request_headers.started":
            # a CONNECT to a proxy has the same event, but only asks for a tunnel
            self.has_begun = info["request"].method != b"CONNECT"

    async def close_socket(self) -> None:
        """Close the socket: httpcore leaves it open when a TLS handshake is cancelled."""
        if self._stream is not None:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()


class _NoCookies(httpx.Cookies):
    """A cookie jar that stays empty: to look for cookies takes longer than to parse a response."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Ignore the cookies of a response."""


class _Client(httpx.AsyncClient):
    cookies = _NoCookies()  # type: ignore[override]  # in place of a property


@asynccontextmanager
async def open_http_client(
    user_agent: str, *, uses_proxies: bool = True
) -> AsyncIterator[HttpClient]:
    """Open a client that uses the proxies named by the environment, if any.

    Raises:
        UsageError: the environment names a proxy or certificates that cannot be used.
    """
    certificates = trusted_certificates()
    async with (
        _open_client(user_agent, certificates, trust_env=uses_proxies) as proxied,
        _open_client(user_agent, certificates, trust_env=False) as direct,
    ):
        yield HttpClient(proxied, direct)


def _open_client(
    user_agent: str, certificates: ssl.SSLContext, *, trust_env: bool
) -> httpx.AsyncClient:
    try:
        return _Client(
            headers={
                "User-Agent": user_agent,
                "Accept-Encoding": "identity",
                "Connection": "close",
            },
            limits=_LIMITS,
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT),
            verify=certificates,
            trust_env=trust_env,
        )
    except ImportError as error:
        raise UsageError(
            "The environment names a SOCKS proxy, and the package socksio is not installed.",
            "Install it with: pip install 'orchestrator[socks]'",
        ) from error
    except (ValueError, httpx.InvalidURL) as error:
        # the URL is not repeated: it may hold a password
        raise UsageError(
            "The proxy that the environment names is not a valid URL.",
            "Correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, as in http://proxy.example:8080.",
        ) from error


async def _exchange(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request and read the whole response, up to the size limit."""
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        body = await _read_body(response)
    finally:
        # shielded: a cancellation must not discard a response that has already been read
        with anyio.CancelScope(shield=True):
            await response.aclose()
    return httpx.Response(
        response.status_code,
        headers=response.headers,
        content=body,
        request=request,
        extensions={"reason_phrase": response.reason_phrase.encode(errors="replace")},
    )


async def _read_body(response: httpx.Response) -> bytes:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise httpx.DecodingError("the response is compressed, which was not asked for")
    body = bytearray()
    # not httpx's iterators: they close the response at their end, where it could be cancelled
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for chunk in response.stream:
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ResponseTooLargeError(f"the response has more than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and those that caused it from the outermost to the innermost."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _reason(error: BaseException) -> str:
    """Return the innermost cause as text: httpx puts its own words before the system's."""
    *_, cause = causes(error)
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]  # one for each address; IPv4 is tried last
    # error numbers of TLS and of name resolution are not those of the operating system
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError | socket.gaierror):
        number = cause.errno or 0
        return os.strerror(number) if number in errno.errorcode else str(cause)
    return str(cause) or type(cause).__name__
