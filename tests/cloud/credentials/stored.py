"""Credentials as the vendor's tools store them, and how the tests look for them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.clock import Clock, SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import CredentialSource
from orchestrator.cloud.credentials.chain import find_credentials

SECRET = "s3cr3t-of-nobody"
ENVIRONMENT = {"TENCENTCLOUD_SECRET_ID": "AKIDenv", "TENCENTCLOUD_SECRET_KEY": SECRET}

NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there, like the metadata service on a machine that is not an instance."""


def write_tccli(home: Path, profile: str = "default", /, **fields: Any) -> Path:
    path = home / ".tccli" / f"{profile}.credential"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(fields))
    return path


def write_ini(home: Path, text: str) -> Path:
    path = home / ".tencentcloud" / "credentials"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


async def find(
    home: Path | None,
    environ: Mapping[str, str] | None = None,
    profile: str = "default",
    *,
    endpoint: str = NOWHERE,
    clock: Clock | None = None,
    is_named: bool = False,
    notes: list[str] | None = None,
) -> CredentialSource:
    """Look for credentials; STS and metadata service are at the endpoint.

    Args:
        notes: takes the sentences for the user.
    """
    return await find_credentials(
        profile,
        environ or {},
        home,
        sts_endpoint=endpoint,
        metadata_endpoint=endpoint,
        clock=ServerClock(clock or SystemClock()),
        notify=([] if notes is None else notes).append,
        is_named=is_named,
        system_file=(home or Path("/nonexistent")) / "etc" / "credentials",
    )
