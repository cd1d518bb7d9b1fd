"""Send each HTTP request exactly once through httpx, within one time limit.

Every request gets a connection of its own. On a kept-alive connection httpx would give a second,
unrequested response to the next request, and that would record another job's TaskId. It would also
send a request into a connection that the server is closing, which leaves its effect unknown.
"""

import errno
import logging
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

import anyio
import httpx

from orchestrator.cloud.proxies import EnvironmentProxies, Proxy
from orchestrator.cloud.tls_trust import remedy_for, trusted_certificates

MAX_BODY_BYTES = 8 * 2**20
"""A listing of 1,000 keys of 850 percent-encoded bytes takes about 3 MiB; nothing takes more."""

_CONNECT_TIMEOUT = 5.0

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
"""OpenSSL's reasons, by version, if what a server answers is not a record of TLS."""

_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=0)
"""The callers limit the requests in flight. A limited pool would leak a connection for each request
that is cancelled while it waits, and a signature must not age in a queue."""


class ResponseTooLargeError(httpx.TransportError):
    """The body of a response exceeds `MAX_BODY_BYTES`."""


class ActionRequiredError(httpx.TransportError):
    """The request had no effect, and none can have one until an operator acts.

    Nothing of it was sent; or a proxy has refused a whole GET or HEAD, which changes nothing.

    Args:
        remedy: what to do.

    Attributes:
        code: name of the row of each subclass in the tables of codes.
    """

    code: ClassVar[str]

    def __init__(self, message: str, remedy: str, request: httpx.Request) -> None:
        super().__init__(message, request=request)
        self.remedy = remedy


class ProxyRefusalError(ActionRequiredError, httpx.ProxyError):
    """A proxy refuses to open a connection: to this user, or to this host."""

    code = "Client.ProxyRefusalError"


class ProxyHandshakeError(httpx.ProxyError):
    """There is no TLS with the proxy itself: perhaps its URL has the wrong scheme."""


class NotTlsError(httpx.ConnectError):
    """What answers in the place of an endpoint does not speak TLS, such as a login page."""


class UntrustedCertificateError(ActionRequiredError, httpx.ConnectError):
    """The certificate of an endpoint is not trusted."""

    code = "Client.SSLCertVerificationError"


class HttpClient:
    """Send requests: no redirects, no retries, no cookies, no connection reuse."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._headers = dict(client.headers)
        self._timeout = client.timeout.as_dict()

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

        Every message of an exception names the proxy, if there is one.

        Raises:
            ActionRequiredError: it had no effect, and none can have one until an operator acts.
            httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError: no byte of the request was
                sent.
            httpx.LocalProtocolError, httpx.UnsupportedProtocol: it cannot be sent at all.
            httpx.HTTPError: any other error; the request may have arrived.
            UsageError: the environment names a proxy or certificates that cannot be used.
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
        try:
            with anyio.fail_after(seconds):
                response = await _exchange(self._client, request)
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):
            raise  # the exception class already shows that nothing was sent
        except (TimeoutError, httpx.TransportError, OSError) as error:
            if progress.has_begun:
                raise _lost_answer(error, request, seconds) from error
            raise _not_sent(error, request, progress) from error
        finally:
            if not progress.has_begun:
                await progress.close_socket()
        proxy, is_plain = proxy_of(request), request.url.scheme == "http"
        is_forwarded = is_plain and proxy is not None and not proxy.is_socks
        if response.status_code == 407 and is_forwarded and method != "POST":
            # without a tunnel the proxy answers in the server's place; a POST has left this machine
            # and could have an effect, so its caller decides
            raise _proxy_error(f"407 {response.reason_phrase}", request, response.headers)
        return response


def proxy_of(request: httpx.Request) -> Proxy | None:
    """Return the proxy that a request was sent through.

    Return ``None`` for a direct connection.
    """
    proxy: Proxy | None = request.extensions.get("proxy")
    return proxy


def redirect_target(response: httpx.Response) -> str:
    """Return the address that a redirect leads to, without login and query.

    Login and query are secret.
    """
    address = re.split("[?#]", response.headers.get("Location", ""), maxsplit=1)[0]
    return re.sub("//[^/]*@", "//", address)


class _Progress:
    """How far a request has got, from httpx's trace events.

    Attributes:
        has_begun: sending of its headers has begun, so it may take effect.
        is_in_handshake: TLS with the server, or with its proxy, has begun and is not complete.
        proxy_headers: those of a proxy's answer to CONNECT.
    """

    def __init__(self) -> None:
        self.has_begun = False
        self.is_in_handshake = False
        self.proxy_headers = httpx.Headers()
        self._stream: Any = None

    @property
    def is_connected(self) -> bool:
        """Whether there was a connection, to the server or to its proxy."""
        return self._stream is not None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Receive one event, as httpx calls it."""
        if event.endswith(".connect_tcp.complete"):
            self._stream = info["return_value"]
        elif event.startswith("connection.start_tls."):  # within a tunnel it is proxy.start_tls
            self.is_in_handshake = not event.endswith(".complete")
        elif event == "http11.send_request_headers.started":
            # a CONNECT to a proxy has the same event, but only asks for a tunnel
            self.has_begun = info["request"].method != b"CONNECT"
        elif event == "http11.receive_response_headers.complete" and not self.has_begun:
            self.proxy_headers = httpx.Headers(info["return_value"][3])

    async def close_socket(self) -> None:
        """Close the socket: httpcore leaves it open when a TLS handshake is cancelled."""
        if self._stream is not None:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()


class _NoCookies(httpx.Cookies):
    """A cookie jar that stays empty.

    To look for cookies takes time (measured: 0.1 ms of 1.6 ms a request).
    """

    def extract_cookies(self, response: httpx.Response) -> None:
        """Ignore the cookies of a response."""


class _Client(httpx.AsyncClient):
    """A client that has no cookies."""

    cookies: Any = _NoCookies()  # a property in httpx, whose setter accepts more


@asynccontextmanager
async def open_http_client(
    user_agent: str, *endpoints: str, uses_proxies: bool = True
) -> AsyncIterator[HttpClient]:
    """Open a client that uses the proxies named by the environment, if any.

    Args:
        endpoints: base URLs for which proxies and certificates are checked now, and not with the
            first request. They may contain placeholders such as ``{region}``.

    Raises:
        UsageError: the environment names a proxy or certificates that cannot be used.
    """
    transport = _Transport(EnvironmentProxies() if uses_proxies else None)
    for endpoint in endpoints:
        parts = urlsplit(endpoint)
        transport.route(parts.scheme, parts.hostname or "", parts.port)
    async with _Client(
        headers={
            "User-Agent": user_agent,
            "Accept-Encoding": "identity",
            "Connection": "close",
        },
        timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT),
        transport=transport,
        trust_env=False,
    ) as client:
        yield HttpClient(client)


class _Transport(httpx.AsyncBaseTransport):
    """Send each request directly or through its proxy, which becomes an extension of the request.

    Certificates are read only for connections with TLS, so that endpoints on loopback need none.

    Args:
        proxies: ``None`` to use none.
    """

    def __init__(self, proxies: EnvironmentProxies | None) -> None:
        self._proxies = proxies
        self._proxy_of_host: dict[tuple[str, str, int | None], Proxy | None] = {}
        self._transports: dict[tuple[str, Proxy | None], httpx.AsyncHTTPTransport] = {}

    def route(
        self, scheme: str, host: str, port: int | None
    ) -> tuple[httpx.AsyncHTTPTransport, Proxy | None]:
        """Return the transport to a host, and the proxy that it uses.

        Raises:
            UsageError: the environment names a proxy or certificates that cannot be used.
        """
        target = scheme, host, port
        if target not in self._proxy_of_host:
            self._proxy_of_host[target] = (
                None if self._proxies is None else self._proxies.proxy_for(*target)
            )
        proxy = self._proxy_of_host[target]
        if (scheme, proxy) not in self._transports:
            self._transports[scheme, proxy] = _open_transport(scheme, proxy)
        return self._transports[scheme, proxy], proxy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, as httpx calls it."""
        url = request.url
        transport, request.extensions["proxy"] = self.route(url.scheme, url.host, url.port)
        if self._proxies is not None:
            variable = self._proxies.http_only(url.scheme, url.host, url.port)
            request.extensions["http_only_proxy"] = variable
        try:
            return await transport.handle_async_request(request)
        except Exception as error:
            # httpcore translates no error of the package socksio, which only an extra installs
            if type(error).__module__.startswith("socksio"):
                raise httpx.ProxyError("no valid answer of SOCKS 5") from error
            raise

    async def aclose(self) -> None:
        """Close all transports."""
        for transport in self._transports.values():
            await transport.aclose()


def _open_transport(scheme: str, proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
    # an empty context, for requests without TLS, trusts nobody
    is_tls = scheme == "https"
    context = trusted_certificates() if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    proxy_config = None
    if proxy is not None:
        if proxy.is_socks:
            # its debug messages contain the password of the proxy
            logging.getLogger("httpcore.socks").setLevel(logging.INFO)
        proxy_config = httpx.Proxy(
            f"{proxy.scheme}://{proxy.host}:{proxy.port}",
            auth=proxy.credentials,
            ssl_context=trusted_certificates() if proxy.scheme == "https" else None,
        )
    return httpx.AsyncHTTPTransport(
        verify=context, trust_env=False, limits=_LIMITS, proxy=proxy_config
    )


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


def _not_sent(
    error: Exception, request: httpx.Request, progress: _Progress
) -> httpx.TransportError:
    """Return the exception for a request of which no byte was sent."""
    where, proxy = _where(request), proxy_of(request)
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            message = f"{where}: the certificate is not trusted: {cause.verify_message or cause}"
            return UntrustedCertificateError(message, remedy_for(cause), request)
    if isinstance(error, httpx.ProxyError):
        return _proxy_error(str(error), request, progress.proxy_headers)
    is_late = isinstance(error, TimeoutError | httpx.TimeoutException)
    message = f"{where}: {'no connection in time' if is_late else _reason(error)}"
    if proxy is not None and proxy.scheme == "https" and progress.is_in_handshake:
        message += "; if this proxy speaks plain HTTP, its URL must begin with http://"
        return ProxyHandshakeError(message, request=request)
    if proxy is not None and not progress.is_connected:
        return httpx.ProxyError(message, request=request)
    is_page = _is_page(progress.proxy_headers)
    if is_page or any(map(_is_no_tls, _causes(error))):
        if is_page:
            message = f"{where}: the proxy answers with a page instead of a connection"
        return NotTlsError(message, request=request)
    if (variable := request.extensions.get("http_only_proxy")) is not None:
        message += (
            f"; the proxy in {variable} is not used for https:// endpoints: if this network needs "
            "it, set HTTPS_PROXY too"
        )
    return (httpx.ConnectTimeout if is_late else httpx.ConnectError)(message, request=request)


def _lost_answer(error: Exception, request: httpx.Request, seconds: float) -> httpx.TransportError:
    """Return the exception for a request that may have arrived."""
    kind: type[httpx.TransportError]
    if isinstance(error, TimeoutError):
        kind, message = httpx.ReadTimeout, f"no complete response within {seconds:g} s"
    elif isinstance(error, httpx.TransportError):
        kind, message = type(error), str(error)
    else:  # an ssl.SSLError, which httpx lets through
        kind, message = httpx.ReadError, _reason(error)
    if proxy_of(request) is not None:
        message = f"{_where(request)}: {message or kind.__name__}"
    return kind(message, request=request)


def _is_page(proxy_headers: httpx.Headers) -> bool:
    """Return whether a proxy's successful answer to CONNECT has a body.

    Such an answer must not have a body. Some proxies send headers about a body of zero bytes.
    """
    has_length = proxy_headers.get("Content-Length", "0") != "0"
    return has_length or "html" in proxy_headers.get("Content-Type", "")


def _proxy_error(answer: str, request: httpx.Request, headers: httpx.Headers) -> httpx.ProxyError:
    """Return the exception for what a proxy answered in the place of a connection.

    Args:
        answer: httpcore's text: for HTTP it begins with the status.
        headers: those of the answer.
    """
    message, remedy = f"{_where(request)}: {answer}", _remedy_for_refusal(answer, request, headers)
    if remedy is None:
        return httpx.ProxyError(message, request=request)
    return ProxyRefusalError(message, remedy, request)


def _remedy_for_refusal(answer: str, request: httpx.Request, headers: httpx.Headers) -> str | None:
    """Return what to do if a proxy refuses the user or the host.

    Return ``None`` if the proxy fails in another way.
    """
    proxy = proxy_of(request)
    assert proxy is not None
    if answer.startswith("403") or answer.endswith("Connection not allowed by ruleset."):
        return (
            f"Ask the administrator of the proxy to allow {request.url.host}; if this machine can "
            "connect to it directly, add it to NO_PROXY."
        )
    schemes = _login_schemes(headers)
    if answer.startswith("407") and schemes and "basic" not in map(str.lower, schemes):
        return (
            f"Run a local proxy such as px or cntlm, which logs in to {proxy.host}:{proxy.port}, "
            f"and name it in {proxy.variable}: this proxy offers {' and '.join(schemes)}, and only "
            "Basic is supported."
        )
    if answer.startswith(("407", "Invalid username/password", "Requested ")):
        what_to_do = (
            f"Correct the user name and password in {proxy.variable}"
            if proxy.credentials
            else f"Write a user name and password into {proxy.variable}, as in "
            "http://user:password@proxy.example:8080"
        )
        return f"{what_to_do} (only Basic works; for NTLM or Kerberos use px or cntlm)."
    return None


def _login_schemes(headers: httpx.Headers) -> list[str]:
    """Return the schemes of login that a proxy offers, such as Basic and NTLM."""
    offered = re.sub(r'"[^"]*"', "", ",".join(headers.get_list("Proxy-Authenticate")))
    # what stands between two commas may be a further parameter of the scheme before it
    schemes = (re.match(r"\s*([A-Za-z][\w-]*)(?![\w-]|\s*=)", one) for one in offered.split(","))
    return list(dict.fromkeys(scheme[1] for scheme in schemes if scheme))


def _where(request: httpx.Request) -> str:
    host, proxy = request.url.netloc.decode(), proxy_of(request)
    return host if proxy is None else f"{host} through the proxy {proxy}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes, from the outermost to the innermost."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_no_tls(error: BaseException) -> bool:
    """Return whether OpenSSL has read something else than TLS."""
    return isinstance(error, ssl.SSLError) and error.reason in _NO_TLS


def _reason(error: BaseException) -> str:
    """Return the innermost cause of an exception as text.

    httpx puts its own words before those of the system.
    """
    *_, cause = _causes(error)
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]  # one for each address; IPv4 is tried last
    if _is_no_tls(cause):
        return "what answers does not speak TLS"
    if isinstance(cause, ssl.SSLEOFError):
        return "the TLS connection was closed unexpectedly"
    # error numbers of TLS and of name resolution are not those of the operating system
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError | socket.gaierror):
        number = cause.errno or 0
        return os.strerror(number) if number in errno.errorcode else str(cause)
    return str(cause) or type(cause).__name__
