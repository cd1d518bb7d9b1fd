"""ExportImages and DescribeImages: one call is one HTTP request, never sent again."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx

from orchestrator.cloud.api3 import Api3Answer, call_api3, text_or_none
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.http_client import HttpClient
from orchestrator.errors import CloudRefusal
from orchestrator.model import Disk, ExportOrder, ImageFacts, Reply

MAX_IMAGES = 100
"""Images in one DescribeImages call: the largest page of the vendor."""

_VERSION = "2017-03-12"
_UINT64 = range(2**64)
_DECIMAL = re.compile(r"[0-9]{1,20}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_REMEMBERED_IDS = 10_000


class CvmClient:
    """The CVM service of one account.

    Args:
        endpoint: base URL; may contain ``{region}``.
        timeout: seconds for one whole request.

    Attributes:
        clock: this service's clock, learned from its answers.
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
        """RequestIds of the latest answers, oldest first."""

    def host(self, region: str) -> str:
        """Return the endpoint's host, and its port if it is unusual: part of the rate key."""
        return self._url(region).netloc.decode()

    async def export_images(
        self, order: ExportOrder, *, signed_at: datetime, credential: Credential
    ) -> Reply:
        """Send the order once and return the answer, whatever it is.

        Args:
            signed_at: the time of the claim by the server's clock. It dates the signature, so the
                vendor refuses a request that leaves more than 300 s after its claim.
            credential: fetched before the claim, so that nothing waits between claim and request.
        """
        answer = await self._post(
            "ExportImages", order.region, _export_body(order), signed_at, credential
        )
        return Reply(
            answer.http_status,
            request_id=answer.request_id,
            task_id=_task_id(answer.result.get("TaskId")),
            cos_paths=_cos_paths(answer.result.get("CosPaths")),
            error_code=answer.error_code,
            error_message=answer.error_message,
            excerpt=answer.excerpt,
        )

    async def describe_images(
        self, region: str, image_ids: Sequence[str], *, credential: Credential
    ) -> tuple[ImageFacts, ...]:
        """Return state and disks of 1 to 100 images; one unknown id makes the API refuse all.

        Raises:
            CloudRefusal: the API answered with an error, or something else answered.
        """
        if not 1 <= len(image_ids) <= MAX_IMAGES:
            raise ValueError(f"1 to {MAX_IMAGES} images, not {len(image_ids)}")
        body = {"ImageIds": list(image_ids), "Limit": MAX_IMAGES}
        answer = await self._post("DescribeImages", region, body, self.clock.now(), credential)
        if answer.error_code is not None:
            raise _refusal(answer, answer.error_message or "no message", answer.error_code)
        if answer.excerpt is not None:
            raise _refusal(answer, f"not an answer of the API: {answer.excerpt}")
        try:
            images = tuple(_image(fields) for fields in answer.result["ImageSet"] or ())
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _refusal(
                answer, f"not an answer of the API: no valid ImageSet ({error!r})"
            ) from error
        # an answer about other images belongs to another request
        if not {image.image_id for image in images} <= set(image_ids):
            raise _refusal(answer, "the answer names images that were not asked for")
        return images

    async def _post(
        self,
        action: str,
        region: str,
        body: Mapping[str, object],
        signed_at: datetime,
        credential: Credential,
    ) -> Api3Answer:
        answer = await call_api3(
            self._http,
            self._url(region),
            service="cvm",
            version=_VERSION,
            action=action,
            region=region,
            body=body,
            credential=credential,
            signed_at=signed_at,
            seconds=self._timeout,
        )
        self._check_is_new(answer)
        if answer.request_id is not None:
            # an answer without RequestId may be a proxy's, whose clock proves nothing
            self.clock.learn(answer.date)
        return answer

    def _check_is_new(self, answer: Api3Answer) -> None:
        """Reject an answer that a proxy or server has already given to an earlier request.

        Raises:
            httpx.RemoteProtocolError: its RequestId has been seen before.
        """
        request_id = answer.request_id
        if request_id is None or not _UUID.fullmatch(request_id):
            return
        if request_id in self._request_ids:
            raise httpx.RemoteProtocolError(
                f"the answer belongs to an earlier request (RequestId {request_id})"
            )
        self._request_ids[request_id] = None
        if len(self._request_ids) > _REMEMBERED_IDS:
            del self._request_ids[next(iter(self._request_ids))]

    def _url(self, region: str) -> httpx.URL:
        return httpx.URL(self._endpoint.replace("{region}", region).rstrip("/") + "/")


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


def _task_id(value: object) -> int | None:
    """Return an unsigned 64-bit number; some JSON encoders write one as a string."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    # not isinstance: true is an int, too
    return value if type(value) is int and value in _UINT64 else None


def _cos_paths(value: object) -> tuple[str, ...]:
    """Return the paths, or none if one of them is not a text."""
    paths = [text_or_none(path) for path in value] if isinstance(value, list) else []
    return tuple(path for path in paths if path) if all(paths) else ()


def _image(fields: Mapping[str, Any]) -> ImageFacts:
    return ImageFacts(
        image_id=_required(fields, "ImageId"),
        state=_required(fields, "ImageState"),
        name=text_or_none(fields.get("ImageName")) or "",
        disks=tuple(
            Disk(_required(disk, "SnapshotId"), _required(disk, "DiskUsage"), int(disk["DiskSize"]))
            for disk in fields.get("SnapshotSet") or ()
        ),
    )


def _required(fields: Mapping[str, Any], name: str) -> str:
    text = text_or_none(fields[name])
    if text is None:
        raise ValueError(f"{name} is not a text")
    return text


def _refusal(answer: Api3Answer, message: str, code: str = "") -> CloudRefusal:
    status = answer.http_status
    return CloudRefusal(
        code or f"Http{status}", message, http_status=status, request_id=answer.request_id
    )
