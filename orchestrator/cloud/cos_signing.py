"""Signatures of COS requests.

Sources: the vendor's page "Request signature" and the signer of its own client. The tests compare
with that signer byte for byte.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import quote

from orchestrator.cloud.credentials.base import Credential

_BACKDATED = timedelta(seconds=60)
"""A server whose clock is a little behind must not find the signature in its future."""

_LIFETIME = timedelta(seconds=600)


def cos_headers(
    credential: Credential,
    *,
    method: str,
    host: str,
    path: str,
    params: Mapping[str, str],
    now: datetime,
) -> dict[str, str]:
    """Return the headers of a COS request: the signed ones and the signature.

    The signed ones are Host and, with temporary credentials, the token.

    Args:
        path: the object's key after a slash, not percent-encoded.
        params: the query, not percent-encoded.
        now: the time by the server's clock.
    """
    headers = {"Host": host}
    if credential.token is not None:
        headers["x-cos-security-token"] = credential.token
    window = f"{int((now - _BACKDATED).timestamp())};{int((now + _LIFETIME).timestamp())}"
    signed_params, signed_headers = _encode_pairs(params), _encode_pairs(headers)
    http_string = f"{method.lower()}\n{path}\n{_join(signed_params)}\n{_join(signed_headers)}\n"
    digest = hashlib.sha1(http_string.encode(), usedforsecurity=False).hexdigest()
    sign_key = _hmac_sha1(credential.secret_key, window)
    signature = _hmac_sha1(sign_key, f"sha1\n{window}\n{digest}\n")
    headers["Authorization"] = (
        f"q-sign-algorithm=sha1&q-ak={credential.secret_id}"
        f"&q-sign-time={window}&q-key-time={window}"
        f"&q-header-list={';'.join(signed_headers)}&q-url-param-list={';'.join(signed_params)}"
        f"&q-signature={signature}"
    )
    return headers


def _encode_pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return the pairs percent-encoded, names in lower case, sorted by name."""
    encoded = {_encode(name).lower(): _encode(value) for name, value in pairs.items()}
    return dict(sorted(encoded.items()))


def _encode(text: str) -> str:
    return quote(text, safe="-_.~")


def _join(pairs: Mapping[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs.items())


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha1").hex()
