"""Clients for the simulator's tests: the vendor's own, and HTTP signed by the vendor's code."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import httpx
from qcloud_cos import CosConfig, CosS3Client
from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.credential import Credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.common.sign import Sign
from tencentcloud.cvm.v20170312 import cvm_client, cvm_client_async

from orchestrator.simulator import DEFAULT_KEY, Key, Simulator

BUCKET = "backup-1250000000"
REGION = "ap-singapore"


def make_sync_cvm(simulator: Simulator, key: Key = DEFAULT_KEY, method: str = "POST") -> Any:
    """Return the vendor's blocking CVM client."""
    return cvm_client.CvmClient(_credential(key), REGION, _profile(simulator, method))


def make_async_cvm(simulator: Simulator, key: Key = DEFAULT_KEY) -> Any:
    """Return the vendor's CVM client over httpx."""
    return cvm_client_async.CvmClient(_credential(key), REGION, _profile(simulator, "POST"))


def make_sts(simulator: Simulator, key: Key = DEFAULT_KEY, method: str = "POST") -> Any:
    """Return the vendor's general client, for STS."""
    profile = _profile(simulator, method)
    return CommonClient("sts", "2018-08-13", _credential(key), REGION, profile)


def make_cos(simulator: Simulator, key: Key = DEFAULT_KEY, region: str = REGION) -> Any:
    """Return the vendor's COS client, without its retries."""
    config = CosConfig(
        Region=region,
        SecretId=key.secret_id,
        SecretKey=key.secret_key,
        Token=key.token,
        Scheme="http",
        IP="127.0.0.1",
        Port=simulator.port,
        KeepAlive=False,
    )
    return CosS3Client(config, retry=0)


async def run_in_thread(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Run a blocking call in a thread, beside the simulator's event loop."""
    return await anyio.to_thread.run_sync(lambda: call(*arguments, **named))


def make_signed_headers(
    simulator: Simulator,
    action: str,
    body: bytes,
    *,
    key: Key = DEFAULT_KEY,
    at: float | None = None,
    region: str | None = REGION,
    version: str = "2017-03-12",
    content_type: str = "application/json",
    service: str = "cvm",
    date: str | None = None,
    signed_headers: str = "content-type;host",
    method: str = "POST",
    query: str = "",
) -> dict[str, str]:
    """Return the headers of a request to CVM, signed by the vendor's signer."""
    stamp = int(time.time() if at is None else at)
    date = date or time.strftime("%Y-%m-%d", time.gmtime(stamp))
    headers = {
        "Host": f"127.0.0.1:{simulator.port}",
        "Content-Type": content_type,
        "X-TC-Action": action,
        "X-TC-Version": version,
        "X-TC-Timestamp": str(stamp),
        **({"X-TC-Region": region} if region else {}),
        **({"X-TC-Token": key.token} if key.token else {}),
    }
    values = {name.lower(): value.lower() for name, value in headers.items()}
    listed = "".join(f"{name}:{values.get(name, '')}\n" for name in signed_headers.split(";"))
    payload = hashlib.sha256(body).hexdigest()
    canonical = f"{method}\n/\n{query}\n{listed}\n{signed_headers}\n{payload}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"TC3-HMAC-SHA256\n{stamp}\n{date}/{service}/tc3_request\n{digest}"
    signature = Sign.sign_tc3(key.secret_key, date, service, text)
    headers["Authorization"] = (
        f"TC3-HMAC-SHA256 Credential={key.secret_id}/{date}/{service}/tc3_request, "
        f"SignedHeaders={signed_headers}, Signature={signature}"
    )
    return headers


async def post(
    http: httpx.AsyncClient,
    simulator: Simulator,
    action: str,
    parameters: Mapping[str, Any],
    **named: Any,
) -> httpx.Response:
    """Send one signed request."""
    body = json.dumps(parameters).encode()
    headers = make_signed_headers(simulator, action, body, **named)
    return await http.post(f"{simulator.url}/", content=body, headers=headers)


async def call(
    http: httpx.AsyncClient,
    simulator: Simulator,
    action: str,
    parameters: Mapping[str, Any],
    **named: Any,
) -> dict[str, Any]:
    """Send one signed request, and return ``Response`` of the answer."""
    answer = await post(http, simulator, action, parameters, **named)
    assert answer.status_code == 200
    response: dict[str, Any] = answer.json()["Response"]
    return response


async def export(
    http: httpx.AsyncClient, simulator: Simulator, *images: str, **parameters: Any
) -> dict[str, Any]:
    """Send one ExportImages, and return the answer."""
    given = {"ImageIds": list(images), "BucketName": BUCKET, **parameters}
    return await call(http, simulator, "ExportImages", given)


def code_of(response: Mapping[str, Any]) -> str | None:
    """Return the code of an answer; None is success."""
    error: Mapping[str, str] | None = response.get("Error")
    return error["Code"] if error else None


async def wait_until(holds: Callable[[], bool]) -> None:
    """Let other tasks run until a condition holds."""
    with anyio.fail_after(60):
        while not holds():
            await anyio.lowlevel.checkpoint()


def _credential(key: Key) -> Any:
    return Credential(key.secret_id, key.secret_key, key.token)


def _profile(simulator: Simulator, method: str) -> Any:
    endpoint = f"127.0.0.1:{simulator.port}"
    return ClientProfile(
        httpProfile=HttpProfile(
            protocol="http", endpoint=endpoint, reqMethod=method, keepAlive=False
        )
    )
