"""Signatures of the vendor's two services, and the server's clock that they are dated by.

Sources: the vendor's pages "Signature v3" (CVM) and "Request signature" (COS), and the signers of
its own clients, which the tests compare with byte for byte.
"""

import hashlib
import hmac
import re
from collections.abc import Generator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx

from orchestrator.clock import Clock
from orchestrator.cloud.credentials.base import Credential

_COS_BACKDATED = timedelta(seconds=60)
_COS_LIFETIME = timedelta(seconds=600)
_COS_SIGNED_HEADERS = re.compile(
    r"host|origin|range|expect|expires|cache-control|transfer-encoding|pic-operations"
    r"|content-(disposition|encoding|type|md5|length)"
    r"|if-(none-)?match|if-(un)?modified-since|x-(cos|ci)-.*"
)
TOLERATED_DRIFT = timedelta(seconds=30)
"""How far a `ServerClock` may be ahead of its server."""


class Tc3Auth(httpx.Auth):
    """Signs one POST to the root of an API 3.0 service with TC3-HMAC-SHA256.

    Args:
        timestamp: dates the signature; the vendor refuses it when it is 300 s off its own clock.
    """

    requires_request_body = True

    def __init__(self, credential: Credential, service: str, timestamp: datetime) -> None:
        self._credential = credential
        self._service = service
        self._timestamp = timestamp

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the time, the token of temporary keys, and the signature."""
        request.headers["X-TC-Timestamp"] = _epoch(self._timestamp)
        if self._credential.token is not None:
            request.headers["X-TC-Token"] = self._credential.token
        request.headers["Authorization"] = sign_tc3(
            self._credential,
            service=self._service,
            host=request.headers["Host"],
            content_type=request.headers["Content-Type"],
            body=request.content,
            timestamp=self._timestamp,
        )
        yield request


class CosAuth(httpx.Auth):
    """Signs one COS request, backdated by a minute for servers whose clock is behind."""

    def __init__(self, credential: Credential, now: datetime) -> None:
        self._credential = credential
        self._now = now

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token of temporary keys and the signature."""
        if self._credential.token is not None:
            request.headers["x-cos-security-token"] = self._credential.token
        request.headers["Authorization"] = sign_cos(
            self._credential,
            method=request.method,
            path=request.url.path,
            params=dict(request.url.params),
            headers=request.headers,
            now=self._now,
        )
        yield request


class ServerClock:
    """The clock of one service, as its Date headers tell it.

    Once it is known it is at most 30 s ahead of the server, so that a signature dated by it expires
    330 s later at the latest.

    Args:
        local: the machine's clock.

    Attributes:
        offset: the server's clock minus the machine's.
        is_known: whether the service itself has told its time.
    """

    def __init__(self, local: Clock) -> None:
        self.local = local
        self.offset = timedelta()
        self.is_known = False

    def now(self) -> datetime:
        """The present moment by the server's clock, aware."""
        return self.local.now() + self.offset

    def learn(self, date_header: str | None, at: datetime) -> timedelta | None:
        """Take in the Date header of a response that came at ``at`` by the machine's clock.

        Only of a response of the service itself: the clock of a proxy proves nothing. Differences
        below 30 s may be a slow response, and the vendor tolerates 300 s.

        Returns:
            The server's clock minus the machine's; ``None`` where the header tells no time.
        """
        said = http_date(date_header)
        if said is None:
            return None
        self.is_known = True
        measured = said - at
        if abs(measured - self.offset) > TOLERATED_DRIFT:
            self.offset = measured
        return measured


def http_date(header: str | None) -> datetime | None:
    """A Date or Last-Modified header as an aware moment; ``None`` where it tells none."""
    try:
        moment = parsedate_to_datetime(header or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def sign_tc3(
    credential: Credential,
    *,
    service: str,
    host: str,
    content_type: str,
    body: bytes,
    timestamp: datetime,
) -> str:
    """The Authorization header of a POST to ``/`` without a query."""
    names = "content-type;host"
    canonical = (
        f"POST\n/\n\ncontent-type:{content_type}\nhost:{host}\n\n{names}\n"
        f"{hashlib.sha256(body).hexdigest()}"
    )
    day = timestamp.astimezone(UTC).date().isoformat()
    scope = f"{day}/{service}/tc3_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"TC3-HMAC-SHA256\n{_epoch(timestamp)}\n{scope}\n{digest}"
    key = f"TC3{credential.secret_key}".encode()
    for part in (day, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return (
        f"TC3-HMAC-SHA256 Credential={credential.secret_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def sign_cos(
    credential: Credential,
    *,
    method: str,
    path: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    now: datetime,
) -> str:
    """The Authorization header of a COS request.

    ``path`` is the object's key with one leading slash; path and query are not percent-encoded.
    Of the headers sent, those are signed that COS can check.
    """
    window = f"{_epoch(now - _COS_BACKDATED)};{_epoch(now + _COS_LIFETIME)}"
    signed_params = _cos_pairs(params)
    signed_headers = _cos_pairs(
        {k: v for k, v in headers.items() if _COS_SIGNED_HEADERS.fullmatch(k.lower())}
    )
    form = f"{method.lower()}\n{path}\n{_joined(signed_params)}\n{_joined(signed_headers)}\n"
    text = f"sha1\n{window}\n{_sha1(form)}\n"
    signature = _hmac_sha1(_hmac_sha1(credential.secret_key, window), text)
    return (
        f"q-sign-algorithm=sha1&q-ak={credential.secret_id}"
        f"&q-sign-time={window}&q-key-time={window}"
        f"&q-header-list={';'.join(signed_headers)}&q-url-param-list={';'.join(signed_params)}"
        f"&q-signature={signature}"
    )


def _cos_pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    encoded = {_cos_quoted(name).lower(): _cos_quoted(value) for name, value in pairs.items()}
    return dict(sorted(encoded.items()))


def _cos_quoted(text: str) -> str:
    return quote(text, safe="-_.~")


def _joined(pairs: Mapping[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs.items())


def _epoch(moment: datetime) -> str:
    return str(int(moment.timestamp()))


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha1").hex()
