"""The call that everybody here makes: one signed ExportImages, and its answer read."""

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

import httpx

from benchmarks.store import BUCKET
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.tc3_signing import Tc3Auth

IN_FLIGHT = 16
"""Requests at once; a run's default."""

LIMITS = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
"""A connection for each of them, kept."""


class ExportCall:
    """ExportImages at the endpoint, and with the keys, that the environment names."""

    def __init__(self) -> None:
        self._url = os.environ["ORCHESTRATOR_CVM_ENDPOINT"]
        self._keys = Credential(
            os.environ["TENCENTCLOUD_SECRET_ID"], os.environ["TENCENTCLOUD_SECRET_KEY"]
        )

    def request(self, image_id: str, region: str) -> dict[str, Any]:
        """What a client of httpx is to send; the signature is of this moment."""
        body = {
            "BucketName": BUCKET,
            "ImageIds": [image_id],
            "ExportFormat": "RAW",
            "FileNamePrefixList": ["night"],
        }
        return {
            "method": "POST",
            "url": self._url,
            "content": json.dumps(body).encode(),
            "headers": {
                "Content-Type": "application/json",
                "X-TC-Action": "ExportImages",
                "X-TC-Version": "2017-03-12",
                "X-TC-Region": region,
            },
            "auth": Tc3Auth(self._keys, "cvm", datetime.now(UTC)),
        }


def read_task_id(response: httpx.Response) -> int:
    """The task that an accepted request became."""
    return int(response.json()["Response"]["TaskId"])


def read_images() -> list[dict[str, str]]:
    """The images that stdin names, a line each: what `Calls.request` takes."""
    rows = (line.split(",") for line in sys.stdin.read().split())
    return [{"image_id": image_id, "region": region} for image_id, region in rows]
