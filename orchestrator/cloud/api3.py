"""API 3.0, the protocol of CVM and STS: one POST per call; the caller classifies the answer.

Sources: the vendor's pages "Request structure" and "Response structure".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.http_client import HttpClient
from orchestrator.cloud.tc3_signing import Tc3Auth

_EXCERPT_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Api3Answer:
    """One HTTP answer: a success, an error with a code, or not an answer of the API.

    Args:
        date: the Date header.
        request_id: the vendor's id of the request; only the API itself sets one.
        result: fields of a success; empty otherwise.
        error_code: whole code, if the API refused the request.
        excerpt: first 200 characters of a body that is not an answer of the API, such as the
            error page of a proxy; else ``None``.
    """

    http_status: int
    date: str | None
    request_id: str | None
    result: Mapping[str, Any]
    error_code: str | None = None
    error_message: str | None = None
    excerpt: str | None = None


async def call_api3(
    http: HttpClient,
    url: httpx.URL | str,
    *,
    service: str,
    version: str,
    action: str,
    region: str,
    body: Mapping[str, object],
    credential: Credential,
    signed_at: datetime,
    seconds: float,
) -> Api3Answer:
    """Send one request; raise what `HttpClient.send` raises.

    Args:
        signed_at: dates the signature.
        seconds: time limit of the whole request.
    """
    response = await http.send(
        "POST",
        url,
        headers={
            "Content-Type": "application/json",
            "X-TC-Action": action,
            "X-TC-Version": version,
            "X-TC-Region": region,
            "X-TC-Language": "en-US",
        },
        content=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        auth=Tc3Auth(credential, service, signed_at),
        seconds=seconds,
    )
    return _read_answer(response)


def text_or_none(value: object) -> str | None:
    """Return a non-empty text that every database can store, else ``None``.

    JSON can escape lone surrogates and NUL, which UTF-8 and PostgreSQL do not accept.
    """
    if not isinstance(value, str) or not value:
        return None
    return value.encode(errors="replace").decode().replace("\0", "?")


def _read_answer(response: httpx.Response) -> Api3Answer:
    fields, status, date = _fields(response), response.status_code, response.headers.get("Date")
    request_id = text_or_none(fields.get("RequestId"))
    error = fields.get("Error")
    # an error has HTTP status 200, too
    if isinstance(error, dict) and (code := text_or_none(error.get("Code"))):
        message = text_or_none(error.get("Message"))
        return Api3Answer(status, date, request_id, {}, code, message)
    if fields and error is None and status == 200:
        return Api3Answer(status, date, request_id, fields)
    start = response.content[: 4 * _EXCERPT_LENGTH]  # a character has 4 bytes at most
    excerpt = start.decode(errors="replace")[:_EXCERPT_LENGTH]
    return Api3Answer(status, date, request_id, {}, excerpt=excerpt)


def _fields(response: httpx.Response) -> Mapping[str, Any]:
    """Return the object ``Response`` of the body, empty if there is none."""
    # the Content-Type is ignored: the vendor sends errors with several
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    fields = body.get("Response") if isinstance(body, dict) else None
    return fields if isinstance(fields, dict) else {}
