"""ExportImages and DescribeImages: one call is one HTTP request, never sent again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

import httpx

from orchestrator.cloud.api3 import Api3Client, text_or_none
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.http_client import HttpClient
from orchestrator.errors import CloudRefusal
from orchestrator.model import Disk, ExportOrder, ImageFacts, Reply

MAX_IMAGES = 100
"""Images in one DescribeImages call: the largest page of the vendor."""

_VERSION = "2017-03-12"
_UINT64 = range(2**64)
_SIZES = range(2**20)
"""Sizes in GiB that are believed: up to 1 PiB."""
_DECIMAL = re.compile(r"[0-9]{1,20}")


class CvmClient:
    """The CVM service of one account.

    Args:
        endpoint: base URL; may contain ``{region}``.
        timeout: seconds for one whole request.

    Attributes:
        clock: this service's clock, learned from its answers.
    """

    def __init__(
        self, http: HttpClient, *, endpoint: str, clock: ServerClock, timeout: float
    ) -> None:
        self._api = Api3Client(http, "cvm", _VERSION, clock, timeout)
        self._endpoint = endpoint
        self.clock = clock

    def host(self, region: str) -> str:
        """Return the endpoint's host, with its port if that is not the default.

        The result is a part of the rate key.
        """
        return _url(self._endpoint, region).netloc.decode()

    async def export_images(
        self, order: ExportOrder, *, signed_at: datetime, credential: Credential
    ) -> Reply:
        """Send the order once and return the answer, whatever it is.

        Args:
            signed_at: the time of the claim by the server's clock. It dates the signature, so the
                vendor refuses a request that leaves more than 300 s after its claim.
            credential: fetched before the claim, so that nothing waits between claim and request.
        """
        url, body = _url(self._endpoint, order.region), _export_body(order)
        reply, result = await self._api.call(
            url, "ExportImages", order.region, body, credential, signed_at
        )
        return replace(
            reply,
            task_id=_task_id(result.get("TaskId")),
            cos_paths=_cos_paths(result.get("CosPaths")),
        )

    async def ask_time(self, region: str, *, credential: Credential) -> None:
        """Call DescribeRegions, so that the clock learns from the answer, whatever it is.

        Raises:
            httpx.HTTPError: there was no answer.
        """
        url, now = _url(self._endpoint, region), self.clock.now()
        await self._api.call(url, "DescribeRegions", region, {}, credential, now)

    async def describe_images(
        self, region: str, image_ids: Sequence[str], *, credential: Credential
    ) -> tuple[ImageFacts, ...]:
        """Return what the API knows about 1 to 100 images.

        One unknown id makes the API refuse all of them.

        Raises:
            CloudRefusal: the API answered with an error, or something else answered.
        """
        if not 1 <= len(image_ids) <= MAX_IMAGES:
            raise ValueError(f"1 to {MAX_IMAGES} images, not {len(image_ids)}")
        url, body = _url(self._endpoint, region), {"ImageIds": list(image_ids), "Limit": MAX_IMAGES}
        reply, result = await self._api.call(
            url, "DescribeImages", region, body, credential, self.clock.now()
        )
        if reply.error_code is not None:
            raise _refusal(reply, reply.error_message or "no message", reply.error_code)
        if reply.excerpt is not None:
            raise _refusal(reply, f"not an answer of the API: {reply.excerpt}")
        rows = result.get("ImageSet", "")
        images = tuple(_image(row) for row in _list(rows) if _text(row, "ImageId"))
        if rows not in (None, []) and not images:
            raise _refusal(reply, "not an answer of the API: no valid ImageSet")
        # an answer about other images belongs to another request
        if not {image.image_id for image in images} <= set(image_ids):
            raise _refusal(reply, "the answer names images that were not asked for")
        return images


@cache
def _url(endpoint: str, region: str) -> httpx.URL:
    return httpx.URL(endpoint.replace("{region}", region).rstrip("/") + "/")


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


def _image(row: Mapping[str, Any]) -> ImageFacts:
    """Read a row of DescribeImages field by field: what cannot be read is not known."""
    return ImageFacts(
        image_id=_text(row, "ImageId"),
        state=_text(row, "ImageState"),
        disks=tuple(
            Disk(_text(disk, "SnapshotId"), _text(disk, "DiskUsage"), _gib(disk.get("DiskSize")))
            for disk in _list(row.get("SnapshotSet"))
            if isinstance(disk, dict)
        ),
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(row: object, name: str) -> str:
    return (text_or_none(row.get(name)) if isinstance(row, dict) else None) or ""


def _gib(value: object) -> int:
    """Return the size of a disk in GiB; 0 if the value is not a valid size.

    Some JSON encoders write a number as a string or with a fraction.
    """
    if not isinstance(value, int | float | str):
        return 0
    try:
        size = int(value)
    except (ValueError, OverflowError):
        return 0
    return size if size in _SIZES else 0


def _refusal(reply: Reply, message: str, code: str = "") -> CloudRefusal:
    status = reply.http_status
    return CloudRefusal(code or f"Http{status}", message, http_status=status)
