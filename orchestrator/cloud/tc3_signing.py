"""Signatures of API 3.0 requests (TC3-HMAC-SHA256).

Sources: the vendor's page "Signature v3" and the signer of its own SDK. The tests compare with
that signer byte for byte.
"""

import hashlib
import hmac
from collections.abc import Generator
from datetime import UTC, datetime

import httpx

from orchestrator.cloud.credentials.base import Credential


class Tc3Auth(httpx.Auth):
    """Sign one POST to the root of an API 3.0 service.

    Args:
        timestamp: dates the signature; the vendor refuses one that differs from its own clock by
            more than 300 s.
    """

    requires_request_body = True

    def __init__(self, credential: Credential, service: str, timestamp: datetime) -> None:
        self._credential = credential
        self._service = service
        self._timestamp = timestamp

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the timestamp, the token of a temporary credential, and the signature."""
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


def sign_tc3(
    credential: Credential,
    *,
    service: str,
    host: str,
    content_type: str,
    body: bytes,
    timestamp: datetime,
) -> str:
    """Return the Authorization header of a POST to ``/`` without a query."""
    names = "content-type;host"
    canonical = (
        f"POST\n/\n\ncontent-type:{content_type}\nhost:{host}\n\n{names}\n"
        f"{hashlib.sha256(body).hexdigest()}"
    )
    day = timestamp.astimezone(UTC).date().isoformat()
    scope = f"{day}/{service}/tc3_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    string_to_sign = f"TC3-HMAC-SHA256\n{_epoch(timestamp)}\n{scope}\n{digest}"
    key = f"TC3{credential.secret_key}".encode()
    for part in (day, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, string_to_sign.encode(), "sha256").hex()
    return (
        f"TC3-HMAC-SHA256 Credential={credential.secret_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def _epoch(moment: datetime) -> str:
    return str(int(moment.timestamp()))
