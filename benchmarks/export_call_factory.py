"""The call that all benchmarks make: one signed ExportImages, and the TaskId of its answer."""

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

import httpx

from benchmarks.cli_on_store import BUCKET
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.tc3_signing import tc3_headers

IN_FLIGHT = 16
"""Requests in flight."""

LIMITS = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
"""One kept-alive connection for each of them."""


class ExportCall:
    """ExportImages with the endpoint and the keys from the environment."""

    def __init__(self) -> None:
        self._url = os.environ["ORCHESTRATOR_CVM_ENDPOINT"]
        self._keys = Credential(
            os.environ["TENCENTCLOUD_SECRET_ID"], os.environ["TENCENTCLOUD_SECRET_KEY"]
        )

    def request(self, image_id: str, region: str) -> dict[str, Any]:
        """Return the arguments of an httpx request, signed now."""
        body = {
            "BucketName": BUCKET,
            "ImageIds": [image_id],
            "ExportFormat": "RAW",
            "FileNamePrefixList": ["night"],
        }
        content = json.dumps(body).encode()
        signed = tc3_headers(
            self._keys,
            service="cvm",
            host=httpx.URL(self._url).netloc.decode(),
            body=content,
            timestamp=datetime.now(UTC),
        )
        headers = {
            "X-TC-Action": "ExportImages",
            "X-TC-Version": "2017-03-12",
            "X-TC-Region": region,
        }
        return {"method": "POST", "url": self._url, "content": content, "headers": signed | headers}


def read_task_id(response: httpx.Response) -> int:
    """Return the TaskId of an accepted request."""
    return int(response.json()["Response"]["TaskId"])


def read_images() -> list[dict[str, str]]:
    """Read one image per line of stdin; return the arguments of `ExportCall.request`."""
    rows = (line.split(",") for line in sys.stdin.read().split())
    return [{"image_id": image_id, "region": region} for image_id, region in rows]
