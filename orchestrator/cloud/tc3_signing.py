"""Signatures of API 3.0 requests (TC3-HMAC-SHA256).

Sources: the vendor's page "Signature v3" and the signer of its own SDK. The tests compare with
that signer byte for byte.
"""

import hashlib
import hmac
from datetime import UTC, datetime

from orchestrator.cloud.credentials.base import Credential

_CONTENT_TYPE = "application/json"


def tc3_headers(
    credential: Credential, *, service: str, host: str, body: bytes, timestamp: datetime
) -> dict[str, str]:
    """Return the signature headers and the signed headers of a POST request.

    The request goes to ``/`` and has no query.

    Args:
        timestamp: dates the signature; the vendor refuses one that differs from its own clock by
            more than 300 s.
    """
    names = "content-type;host"
    canonical = (
        f"POST\n/\n\ncontent-type:{_CONTENT_TYPE}\nhost:{host}\n\n{names}\n"
        f"{hashlib.sha256(body).hexdigest()}"
    )
    epoch, day = str(int(timestamp.timestamp())), timestamp.astimezone(UTC).date().isoformat()
    scope = f"{day}/{service}/tc3_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    string_to_sign = f"TC3-HMAC-SHA256\n{epoch}\n{scope}\n{digest}"
    key = f"TC3{credential.secret_key}".encode()
    for part in (day, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, string_to_sign.encode(), "sha256").hex()
    headers = {
        "Host": host,
        "Content-Type": _CONTENT_TYPE,
        "X-TC-Timestamp": epoch,
        "Authorization": (
            f"TC3-HMAC-SHA256 Credential={credential.secret_id}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        ),
    }
    return headers if credential.token is None else headers | {"X-TC-Token": credential.token}


def unsigned_headers(*, host: str, timestamp: datetime) -> dict[str, str]:
    """Return the headers of a POST for an action that needs no signature.

    Source: the SDK.
    """
    return {
        "Host": host,
        "Content-Type": _CONTENT_TYPE,
        "X-TC-Timestamp": str(int(timestamp.timestamp())),
        "Authorization": "SKIP",
    }
