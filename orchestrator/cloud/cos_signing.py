"""Signatures of COS requests.

Sources: the vendor's page "Request signature" and the signer of its own client. The tests compare
with that signer byte for byte.
"""

import hashlib
import hmac
import re
from collections.abc import Generator, Mapping
from datetime import datetime, timedelta
from urllib.parse import quote

import httpx

from orchestrator.cloud.credentials.base import Credential

_BACKDATED = timedelta(seconds=60)
"""A server whose clock is a little behind must not find the signature in its future."""

_LIFETIME = timedelta(seconds=600)

_SIGNED_HEADERS = re.compile(
    r"host|origin|range|expect|expires|cache-control|transfer-encoding|pic-operations"
    r"|content-(disposition|encoding|type|md5|length)"
    r"|if-(none-)?match|if-(un)?modified-since|x-(cos|ci)-.*"
)
"""Headers that the vendor's client signs."""


class CosAuth(httpx.Auth):
    """Sign one COS request.

    Args:
        now: the time by the server's clock.
    """

    def __init__(self, credential: Credential, now: datetime) -> None:
        self._credential = credential
        self._now = now

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token of a temporary credential, and the signature."""
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


def sign_cos(
    credential: Credential,
    *,
    method: str,
    path: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    now: datetime,
) -> str:
    """Return the Authorization header of a COS request.

    Args:
        path: the object's key after a slash, not percent-encoded.
        params: the query, not percent-encoded.
        headers: all that are sent; of these the signature covers `_SIGNED_HEADERS`.
    """
    window = f"{int((now - _BACKDATED).timestamp())};{int((now + _LIFETIME).timestamp())}"
    signed_params = _encode_pairs(params)
    signed_headers = _encode_pairs(
        {k: v for k, v in headers.items() if _SIGNED_HEADERS.fullmatch(k.lower())}
    )
    http_string = f"{method.lower()}\n{path}\n{_join(signed_params)}\n{_join(signed_headers)}\n"
    digest = hashlib.sha1(http_string.encode(), usedforsecurity=False).hexdigest()
    sign_key = _hmac_sha1(credential.secret_key, window)
    signature = _hmac_sha1(sign_key, f"sha1\n{window}\n{digest}\n")
    return (
        f"q-sign-algorithm=sha1&q-ak={credential.secret_id}"
        f"&q-sign-time={window}&q-key-time={window}"
        f"&q-header-list={';'.join(signed_headers)}&q-url-param-list={';'.join(signed_params)}"
        f"&q-signature={signature}"
    )


def _encode_pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return the pairs percent-encoded, names in lower case, in the order of the names."""
    encoded = {_encode(name).lower(): _encode(value) for name, value in pairs.items()}
    return dict(sorted(encoded.items()))


def _encode(text: str) -> str:
    return quote(text, safe="-_.~")


def _join(pairs: Mapping[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs.items())


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha1").hex()
