"""Verification of the HMAC-SHA1 signature that COS requires."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from orchestrator.simulator.error_messages import CosError
from orchestrator.simulator.http_connection import Request
from orchestrator.simulator.settings import Key

_PARTS = frozenset(
    {
        "q-sign-algorithm",
        "q-ak",
        "q-sign-time",
        "q-key-time",
        "q-header-list",
        "q-url-param-list",
        "q-signature",
    }
)
_PERIOD = re.compile(r"(\d{1,11});(\d{1,11})")


def verify(request: Request, keys: Mapping[str, Key], now: float) -> Key:
    """Return the key that signed a request.

    Args:
        keys: by secret id.
        now: seconds since the epoch, on the server's clock.

    Raises:
        CosError: the signature is missing, wrong or not valid now; the codes are those of COS.
    """
    parts = _parts(request)
    key = keys.get(parts["q-ak"])
    if key is None:
        raise CosError("InvalidAccessKeyId")
    _check_token(request.headers.get("x-cos-security-token"), key, now)
    _check_period(parts["q-sign-time"], now)
    _check_period(parts["q-key-time"], now)
    if not hmac.compare_digest(_signature(request, key, parts), parts["q-signature"]):
        raise CosError("SignatureDoesNotMatch")
    return key


def _parts(request: Request) -> Mapping[str, str]:
    text = request.headers.get("authorization", "")
    parts = dict(pair.partition("=")[::2] for pair in text.strip().split("&"))
    if not parts.keys() >= _PARTS or parts["q-sign-algorithm"] != "sha1":
        raise CosError("AccessDenied")
    return parts


def _check_token(token: str | None, key: Key, now: float) -> None:
    if token != key.token:
        raise CosError("InvalidAccessKeyId")
    if key.expires_at is not None and now >= key.expires_at:
        raise CosError("ExpiredToken")


def _check_period(text: str, now: float) -> None:
    period = _PERIOD.fullmatch(text)
    if period is None:
        raise CosError("AccessDenied")
    if now < int(period[1]):
        raise CosError("RequestTimeTooSkewed")
    if now > int(period[2]):
        raise CosError("AccessDenied", "Request has expired")


def _signature(request: Request, key: Key, parts: Mapping[str, str]) -> str:
    """Return the signature that the request should have."""
    query = parse_qsl(request.query, keep_blank_values=True, encoding="latin-1")
    path = unquote_to_bytes(request.path)
    lines = (
        request.method.lower().encode(),
        path,
        _signed_pairs(parts["q-url-param-list"], {_escape(name): value for name, value in query}),
        _signed_pairs(parts["q-header-list"], request.headers),
        b"",
    )
    digest = hashlib.sha1(b"\n".join(lines), usedforsecurity=False).hexdigest()
    text = f"sha1\n{parts['q-sign-time']}\n{digest}\n"
    return _hmac(_hmac(key.secret_key, parts["q-key-time"]), text)


def _signed_pairs(names: str, values: Mapping[str, str]) -> bytes:
    """Return the named parameters or headers in the form in which they are signed."""
    listed = names.split(";") if names else []
    for name in listed:
        if name not in values:
            raise CosError("SignatureDoesNotMatch", f"{name} is signed but missing.")
    pairs = (f"{name}={quote(values[name].encode('latin-1'), safe='-_.~')}" for name in listed)
    return "&".join(pairs).encode()


def _escape(name: str) -> str:
    return quote(name.encode("latin-1"), safe="-_.~").lower()


def _hmac(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha1").hex()
