"""The vendor's own CVM clients work with the simulator."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tencentcloud.common.exception import TencentCloudSDKException
from tencentcloud.cvm.v20170312 import models

from orchestrator.simulator import DEFAULT_KEY, Key, Simulator, SimulatorOptions

from .clients import BUCKET, make_async_cvm, make_sync_cvm, run_in_thread

pytestmark = [
    pytest.mark.anyio,
    # the vendor's client leaves its pooled sockets to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

TEMPORARY = Key("AKIDtemporary", "temporary-key", "100000000002", token="token-of-today")
IMAGE = "img-72n9mi0y"


@pytest.fixture
async def guarded() -> AsyncIterator[Simulator]:
    """A simulator with a permanent key, a temporary key, and an expired one."""
    expired = replace(TEMPORARY, secret_id="AKIDexpired", expires_at=time.time() - 1)
    options = SimulatorOptions(keys=(DEFAULT_KEY, TEMPORARY, expired))
    async with Simulator(options) as running:
        yield running


def make_export_request(image_id: str = IMAGE) -> Any:
    """Make the vendor's own request object."""
    request = models.ExportImagesRequest()
    request.from_json_string(json.dumps({"ImageIds": [image_id], "BucketName": BUCKET}))
    return request


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_blocking_client_exports_an_image(simulator: Simulator, method: str) -> None:
    """The client gets TaskId and path, with GET and with POST."""
    request = make_export_request()
    request.OnlyExportRootDisk = True
    answer = await run_in_thread(make_sync_cvm(simulator, method=method).ExportImages, request)
    assert answer.TaskId == simulator.exports[0].task_id
    assert [path.startswith(f"/{IMAGE}_system_snap-") for path in answer.CosPaths] == [True]
    assert simulator.ledger[0].request_id == answer.RequestId


async def test_async_client_exports_an_image(simulator: Simulator) -> None:
    """The vendor's asynchronous client also gets TaskId and path."""
    async with make_async_cvm(simulator) as client:
        answer = await client.ExportImages(make_export_request())
    assert answer.TaskId == simulator.exports[0].task_id
    assert [path.startswith(f"/{IMAGE}_system_snap-") for path in answer.CosPaths] == [True]


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_images_are_described(simulator: Simulator, method: str) -> None:
    """The client's own model has every field that the simulator returns."""
    request = models.DescribeImagesRequest()
    request.from_json_string(
        json.dumps({"Filters": [{"Name": "image-id", "Values": [IMAGE]}], "Limit": 5})
    )
    answer = await run_in_thread(make_sync_cvm(simulator, method=method).DescribeImages, request)
    assert answer.TotalCount == 1
    assert answer.ImageSet[0].ImageId == IMAGE
    assert answer.ImageSet[0].SnapshotSet[0].DiskUsage == "SYSTEM_DISK"


async def test_regions_are_described(simulator: Simulator) -> None:
    """DescribeRegions returns the 17 regions of CVM."""
    answer = await run_in_thread(
        make_sync_cvm(simulator).DescribeRegions, models.DescribeRegionsRequest()
    )
    assert answer.TotalCount == len(answer.RegionSet) == 17


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (replace(DEFAULT_KEY, secret_key="another"), "AuthFailure.SignatureFailure"),
        (replace(DEFAULT_KEY, secret_id="AKIDnobody"), "AuthFailure.SecretIdNotFound"),
        (replace(DEFAULT_KEY, token="a-token"), "AuthFailure.TokenFailure"),
        (replace(TEMPORARY, token=None), "AuthFailure.TokenFailure"),
        (replace(TEMPORARY, token="yesterday's"), "AuthFailure.TokenFailure"),
        (replace(TEMPORARY, secret_id="AKIDexpired"), "AuthFailure.TokenFailure"),
    ],
)
async def test_wrong_credential_is_refused(guarded: Simulator, key: Key, code: str) -> None:
    """Key, id and token each have a code; nothing is exported."""
    with pytest.raises(TencentCloudSDKException) as refusal:
        await run_in_thread(make_sync_cvm(guarded, key).ExportImages, make_export_request())
    assert refusal.value.get_code() == code
    assert not guarded.exports


async def test_temporary_key_works_with_its_token(guarded: Simulator) -> None:
    """The export belongs to the account of the key."""
    await run_in_thread(make_sync_cvm(guarded, TEMPORARY).ExportImages, make_export_request())
    assert guarded.exports[0].account == TEMPORARY.account


@pytest.mark.parametrize("skew", [-301.5, 301.5])
async def test_signature_expires_in_both_directions(simulator: Simulator, skew: float) -> None:
    """A signature over 300 seconds from the server's clock is refused."""
    simulator.change(skew=skew)
    with pytest.raises(TencentCloudSDKException) as refusal:
        await run_in_thread(make_sync_cvm(simulator).ExportImages, make_export_request())
    assert refusal.value.get_code() == "AuthFailure.SignatureExpire"


async def test_unknown_parameter_is_named(simulator: Simulator) -> None:
    """A parameter that the vendor's models do not have is refused by name."""
    with pytest.raises(TencentCloudSDKException) as refusal:
        await run_in_thread(make_sync_cvm(simulator).call_json, "ExportImages", {"Bucket": BUCKET})
    assert refusal.value.get_code() == "UnknownParameter"
    assert "`Bucket`" in refusal.value.get_message()
