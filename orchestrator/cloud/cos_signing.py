"""Signatures of COS requests.

Sources: the vendor's page "Request signature" and the signer of its own client, which the tests
compare with byte for byte.
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


_LIFETIME = timedelta(seconds=600)


_SIGNED_HEADERS = re.compile(
    r"host|origin|range|expect|expires|cache-control|transfer-encoding|pic-operations"
    r"|content-(disposition|encoding|type|md5|length)"
    r"|if-(none-)?match|if-(un)?modified-since|x-(cos|ci)-.*"
)


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
    window = f"{int((now - _BACKDATED).timestamp())};{int((now + _LIFETIME).timestamp())}"
    signed_params = _encoded_pairs(params)
    signed_headers = _encoded_pairs(
        {k: v for k, v in headers.items() if _SIGNED_HEADERS.fullmatch(k.lower())}
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


def _encoded_pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    encoded = {_quoted(name).lower(): _quoted(value) for name, value in pairs.items()}
    return dict(sorted(encoded.items()))


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


def _joined(pairs: Mapping[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs.items())


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha1").hex()
