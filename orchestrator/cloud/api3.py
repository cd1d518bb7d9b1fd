"""API 3.0, the protocol of CVM and STS: one POST per call; the caller classifies the answer.

Sources: the vendor's pages "Request structure" and "Response structure".
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.http_client import HttpClient, proxy_of, redirect_target
from orchestrator.cloud.tc3_signing import tc3_headers, unsigned_headers
from orchestrator.model import Reply

SIGNATURE_EXPIRED = "AuthFailure.SignatureExpire"
"""Code of a refusal because the clocks differ."""

_EXCERPT_LENGTH = 200
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_REMEMBERED_IDS = 10_000


class Api3Client:
    """One service of API 3.0.

    Args:
        clock: learns the server's time from the answers.
        timeout: seconds for one whole request.
    """

    def __init__(
        self, http: HttpClient, service: str, version: str, clock: ServerClock, timeout: float
    ) -> None:
        self._http = http
        self._service = service
        self._version = version
        self._clock = clock
        self._timeout = timeout
        self._request_ids: dict[str, None] = {}
        """RequestIds of the latest answers, oldest first."""

    async def call(
        self,
        url: httpx.URL,
        action: str,
        region: str,
        body: Mapping[str, object],
        credential: Credential | None,
        signed_at: datetime,
    ) -> tuple[Reply, Mapping[str, Any]]:
        """Send one request; return its answer, and the fields of a success.

        Args:
            credential: ``None`` for an action that needs no signature.
            signed_at: dates the signature.

        Raises:
            httpx.HTTPError: as `HttpClient.send` does, or the answer belongs to another request.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        host = url.netloc.decode()
        if credential is None:
            signed = unsigned_headers(host=host, timestamp=signed_at)
        else:
            signed = tc3_headers(
                credential, service=self._service, host=host, body=content, timestamp=signed_at
            )
        headers = {
            "X-TC-Action": action,
            "X-TC-Version": self._version,
            "X-TC-Region": region,
            "X-TC-Language": "en-US",
        }
        response = await self._http.send(
            "POST", url, headers=signed | headers, content=content, seconds=self._timeout
        )
        reply, result = _read_reply(response)
        if reply.request_id is not None:
            self._check_is_new(reply.request_id)
        # what has neither may come from a proxy, whose clock proves nothing
        if reply.request_id is not None or reply.excerpt is None:
            self._clock.learn(response.headers.get("Date"), host)
        if reply.error_code == SIGNATURE_EXPIRED:
            self._clock.record_refusal(signed_at)
        return reply, result

    def _check_is_new(self, request_id: str) -> None:
        """Reject an answer that a proxy or server already gave to an earlier request.

        Raises:
            httpx.RemoteProtocolError: its RequestId has been seen before.
        """
        if not _UUID.fullmatch(request_id):
            return
        if request_id in self._request_ids:
            raise httpx.RemoteProtocolError(
                f"the answer belongs to an earlier request (RequestId {request_id})"
            )
        self._request_ids[request_id] = None
        if len(self._request_ids) > _REMEMBERED_IDS:
            del self._request_ids[next(iter(self._request_ids))]


def text_or_none(value: object) -> str | None:
    """Return a non-empty text that every database can store, else ``None``.

    JSON can escape lone surrogates and NUL, which UTF-8 and PostgreSQL do not accept.
    """
    if not isinstance(value, str) or not value:
        return None
    return value.encode(errors="replace").decode().replace("\0", "?")


def _read_reply(response: httpx.Response) -> tuple[Reply, Mapping[str, Any]]:
    # the Content-Type is ignored: the vendor sends errors with several
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    fields = body.get("Response") if isinstance(body, dict) else None
    if not isinstance(fields, dict):
        fields = {}
    reply = Reply(response.status_code, text_or_none(fields.get("RequestId")))
    error = fields.get("Error")
    # an error has HTTP status 200, too
    if isinstance(error, dict) and (code := text_or_none(error.get("Code"))):
        message = text_or_none(error.get("Message"))
        return replace(reply, error_code=code, error_message=message), {}
    if fields and error is None and response.status_code == 200:
        return reply, fields
    start = response.content[: 4 * _EXCERPT_LENGTH]  # a character has 4 bytes at most
    excerpt = start.decode(errors="replace").replace("\0", "?")
    if response.has_redirect_location:
        excerpt = f"redirect to {redirect_target(response)}"
    through = f"through the proxy {proxy}: " if (proxy := proxy_of(response.request)) else ""
    return replace(reply, excerpt=through + excerpt[:_EXCERPT_LENGTH]), {}
