"""ExportImages and DescribeImages: one call is one HTTP request, and its answer is not judged."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import httpx

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.http_client import HttpClient
from orchestrator.cloud.tc3_signing import Tc3Auth
from orchestrator.errors import CloudRefusal
from orchestrator.model import Disk, ExportOrder, ImageFacts, Reply

MAX_IMAGES = 100
"""Images of one DescribeImages call: the largest page that the vendor gives."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_SERVICE = "cvm"
_VERSION = "2017-03-12"
_EXCERPT_CHARACTERS = 200
_UINT64 = range(2**64)
_DECIMAL = re.compile(r"[0-9]{1,20}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_REMEMBERED = 10_000


class CvmClient:
    """CVM of one account.

    Args:
        endpoint: base URL; may hold ``{region}``.
        timeout: seconds for one request in all.

    Attributes:
        clock: of this service.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        endpoint: str,
        clock: ServerClock,
        timeout: float,
    ) -> None:
        self._http = http
        self._endpoint = endpoint
        self.clock = clock
        self._timeout = timeout
        self._request_ids: dict[str, None] = {}
        """Numbers of the latest answers, the oldest first."""

    def host(self, region: str) -> str:
        """The endpoint's host, and its port where it is not the usual one: a key of the rate."""
        return self._root(region).netloc.decode()

    async def export_images(
        self, order: ExportOrder, *, signed_at: datetime, credential: Credential
    ) -> Reply:
        """Send the order once; every answer is a `Reply`, and no answer an exception of httpx.

        ``signed_at``, the claim's time by the server's clock, dates the signature and is never
        renewed; ``credential`` was fetched before the claim, so that nothing waits after it.
        """
        return _reply(
            await self._post(
                "ExportImages", order.region, _export_body(order), signed_at, credential
            )
        )

    async def describe_images(
        self, region: str, image_ids: Sequence[str], *, credential: Credential
    ) -> tuple[ImageFacts, ...]:
        """State and disks of 1 to 100 images; one unknown id refuses them all.

        Raises:
            CloudRefusal: the API answered with an error, or something else answered.
        """
        if not 1 <= len(image_ids) <= MAX_IMAGES:
            raise ValueError(f"1 to {MAX_IMAGES} images, not {len(image_ids)}")
        body = {"ImageIds": list(image_ids), "Limit": MAX_IMAGES}
        signed_at = self.clock.now()
        answer = await self._post("DescribeImages", region, body, signed_at, credential)
        return _image_set(answer, asked=frozenset(image_ids))

    async def _post(
        self,
        action: str,
        region: str,
        body: Mapping[str, object],
        signed_at: datetime,
        credential: Credential,
    ) -> "_Answer":
        response = await self._http.send(
            "POST",
            self._root(region),
            headers={
                "Content-Type": "application/json",
                "X-TC-Action": action,
                "X-TC-Version": _VERSION,
                "X-TC-Region": region,
                "X-TC-Language": "en-US",
            },
            content=_encode(body).encode(),
            auth=Tc3Auth(credential, _SERVICE, signed_at),
            seconds=self._timeout,
        )
        answer = _Answer(response, _api_answer(response.content))
        self._refuse_repetition(answer)
        if answer.request_id is not None:
            # only the API itself numbers requests: what a proxy answers tells nothing of its clock
            self.clock.learn(response.headers.get("Date"), self.clock.local.now())
        return answer

    def _refuse_repetition(self, answer: "_Answer") -> None:
        """Refuse the answer to an earlier request, which a proxy or server sent once more.

        Raises:
            httpx.RemoteProtocolError: the vendor's number for the request has been seen before.
        """
        number = answer.request_id
        if number is None or not _UUID.fullmatch(number):
            return
        if number in self._request_ids:
            message = f"the answer to an earlier request came again (RequestId {number})"
            raise httpx.RemoteProtocolError(message, request=answer.response.request)
        self._request_ids[number] = None
        if len(self._request_ids) > _REMEMBERED:
            del self._request_ids[next(iter(self._request_ids))]

    def _root(self, region: str) -> httpx.URL:
        return _url(self._endpoint.replace("{region}", region).rstrip("/") + "/")


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response, with the fields of its ``Response`` where it is one of the API."""

    response: httpx.Response
    fields: dict[str, Any] | None

    @property
    def request_id(self) -> str | None:
        """The vendor's number of the request."""
        return _text((self.fields or {}).get("RequestId"))


@lru_cache(maxsize=256)
def _url(text: str) -> httpx.URL:
    """Kept, because a run asks for its host before every claim."""
    return httpx.URL(text)


def _export_body(order: ExportOrder) -> Mapping[str, object]:
    body: dict[str, object] = {
        "BucketName": order.bucket,
        "ImageIds": list(order.image_ids),
        "ExportFormat": order.format.value,
    }
    if order.name_prefix:
        body["FileNamePrefixList"] = [order.name_prefix] * len(order.image_ids)
    if order.only_root_disk:
        body["OnlyExportRootDisk"] = True
    if order.role_name:
        body["RoleName"] = order.role_name
    return body


def _reply(answer: _Answer) -> Reply:
    response, fields = answer.response, answer.fields or {}
    reply = Reply(response.status_code, request_id=answer.request_id)
    error = fields.get("Error")
    if isinstance(error, dict) and (code := _text(error.get("Code"))):
        return replace(reply, error_code=code, error_message=_text(error.get("Message")))
    if answer.fields is None or error is not None or response.status_code != 200:
        return replace(reply, excerpt=_excerpt(response.content))
    return replace(
        reply,
        task_id=_task_id(fields.get("TaskId")),
        cos_paths=_cos_paths(fields.get("CosPaths")),
    )


def _api_answer(content: bytes) -> dict[str, Any] | None:
    # whatever the Content-Type says: the vendor's own test of it takes errors for successes
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    answer = body.get("Response") if isinstance(body, dict) else None
    return answer if isinstance(answer, dict) else None


def _text(value: object) -> str | None:
    """A text that every store can hold: JSON may escape lone surrogates and NUL."""
    if not isinstance(value, str) or not value:
        return None
    return value.encode(errors="replace").decode().replace("\0", "?")


def _excerpt(content: bytes) -> str:
    return content[: 4 * _EXCERPT_CHARACTERS].decode(errors="replace")[:_EXCERPT_CHARACTERS]


def _task_id(value: object) -> int | None:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    return value if type(value) is int and value in _UINT64 else None


def _cos_paths(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    paths = [_text(path) for path in value]
    return tuple(path for path in paths if path) if all(paths) else ()


def _image_set(answer: _Answer, asked: frozenset[str]) -> tuple[ImageFacts, ...]:
    """The images of an answer; one that names others answers another question."""
    reply = _reply(answer)
    if reply.error_code is not None:
        raise _refusal(reply, reply.error_code, reply.error_message or "no message")
    unusable = f"Http{reply.http_status}"
    try:
        if reply.excerpt is None and answer.fields is not None:
            images = tuple(_image(image) for image in answer.fields["ImageSet"] or ())
            if asked.issuperset(image.image_id for image in images):
                return images
            raise _refusal(reply, unusable, "the answer names images that were not asked for")
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    excerpt = _excerpt(answer.response.content)
    raise _refusal(reply, unusable, f"not an answer of the API: {excerpt}")


def _refusal(reply: Reply, code: str, message: str) -> CloudRefusal:
    return CloudRefusal(code, message, http_status=reply.http_status, request_id=reply.request_id)


def _image(fields: Mapping[str, Any]) -> ImageFacts:
    return ImageFacts(
        image_id=fields["ImageId"],
        state=fields["ImageState"],
        name=fields.get("ImageName") or "",
        disks=tuple(
            Disk(disk["SnapshotId"], disk["DiskUsage"], int(disk["DiskSize"]))
            for disk in fields.get("SnapshotSet") or ()
        ),
    )
