"""Verification of the TC3-HMAC-SHA256 signature that CVM and STS require."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

from orchestrator.simulator.error_messages import ApiError
from orchestrator.simulator.http_connection import Request
from orchestrator.simulator.settings import Key

_TOLERANCE = 300
"""Seconds by which a signature's time can differ from the server's (source: the vendor)."""
_ALGORITHM = "TC3-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM} +Credential=(?P<id>[^/\s]+)/(?P<date>[\d-]+)/(?P<service>\w+)/tc3_request, *"
    r"SignedHeaders=(?P<headers>[\w;-]+), *Signature=(?P<signature>[0-9a-f]{64})"
)


def verify(request: Request, keys: Mapping[str, Key], now: float, service: str = "cvm") -> Key:
    """Return the key that signed a request.

    Args:
        keys: by secret id.
        now: seconds since the epoch, on the server's clock.

    Raises:
        ApiError: one of the ``AuthFailure`` codes.
    """
    claim = _AUTHORIZATION.fullmatch(request.headers.get("authorization", "").strip())
    if claim is None:
        raise ApiError("AuthFailure.InvalidAuthorization")
    stamp = _timestamp(request)
    if claim["date"] != datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d"):
        raise ApiError(
            "AuthFailure.SignatureFailure", "The credential is not of the request's day."
        )
    if claim["service"] != service:
        raise ApiError("AuthFailure.SignatureFailure", "The credential is of another service.")
    if abs(now - stamp) > _TOLERANCE:
        raise ApiError("AuthFailure.SignatureExpire")
    key = keys.get(claim["id"])
    if key is None:
        raise ApiError("AuthFailure.SecretIdNotFound")
    if not hmac.compare_digest(_signature(request, key, claim, stamp), claim["signature"]):
        raise ApiError("AuthFailure.SignatureFailure")
    _check_token(request.headers.get("x-tc-token"), key, now)
    return key


def _timestamp(request: Request) -> int:
    stamp = request.headers.get("x-tc-timestamp", "")
    if not stamp:
        raise ApiError("MissingParameter", "The request lacks the parameter `Timestamp`.")
    if not re.fullmatch(r"\d{1,11}", stamp):
        raise ApiError("InvalidParameterValue", "The parameter `Timestamp` is not a time.")
    return int(stamp)


def _signature(request: Request, key: Key, claim: re.Match[str], stamp: int) -> str:
    """Return the signature that the request should have."""
    names = claim["headers"].split(";")
    if not {"content-type", "host"} <= set(names):
        raise ApiError("AuthFailure.SignatureFailure", "content-type and host must be signed.")
    unsigned = request.headers.get("x-tc-content-sha256") == "UNSIGNED-PAYLOAD"
    payload = b"UNSIGNED-PAYLOAD" if unsigned else request.body
    canonical = "\n".join(
        (
            request.method,
            "/",
            request.query,
            *(f"{name}:{_signed_value(request, name)}" for name in names),
            "",
            claim["headers"],
            hashlib.sha256(payload).hexdigest(),
        )
    )
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    text = f"{_ALGORITHM}\n{stamp}\n{claim['date']}/{claim['service']}/tc3_request\n{digest}"
    return _hmac(_signing_key(key.secret_key, claim["date"], claim["service"]), text).hex()


def _signed_value(request: Request, name: str) -> str:
    if name not in request.headers:
        raise ApiError("AuthFailure.SignatureFailure", f"The signed header `{name}` is missing.")
    return request.headers[name].strip().lower()


@lru_cache(maxsize=256)
def _signing_key(secret: str, date: str, service: str) -> bytes:
    return _hmac(_hmac(_hmac(f"TC3{secret}".encode(), date), service), "tc3_request")


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _check_token(token: str | None, key: Key, now: float) -> None:
    ended = key.expires_at is not None and now >= key.expires_at
    if ended or (token or None) != key.token:
        raise ApiError("AuthFailure.TokenFailure")
