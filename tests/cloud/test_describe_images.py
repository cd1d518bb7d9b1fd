"""DescribeImages: what is sent, and how every kind of answer is read."""

from datetime import timedelta

import pytest

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cvm import CvmClient
from orchestrator.errors import CloudRefusal
from orchestrator.model import Disk, ImageFacts
from tests.cloud.scripted_server import CREDENTIAL, NOON, ScriptedServer, api, http

pytestmark = pytest.mark.anyio


async def describe(cvm: CvmClient, *image_ids: str) -> tuple[ImageFacts, ...]:
    return await cvm.describe_images("ap-tokyo", image_ids, credential=CREDENTIAL)


async def test_images_are_described_with_their_disks(
    server: ScriptedServer, cvm: CvmClient
) -> None:
    """State, name and disks of each image are read; null means empty."""
    disk = {"SnapshotId": "snap-1", "DiskUsage": "SYSTEM_DISK", "DiskSize": 50, "Other": 1}
    full = {"ImageId": "img-aaaaaaaa", "ImageState": "NORMAL", "ImageName": "web"}
    bare = {"ImageId": "img-bbbbbbbb", "ImageState": "EXPORTING", "ImageName": None}
    images = [{**full, "SnapshotSet": [disk]}, {**bare, "SnapshotSet": None}]
    server.respond(api({"TotalCount": 2, "ImageSet": images, "RequestId": "r-3"}))
    assert await describe(cvm, "img-aaaaaaaa", "img-bbbbbbbb") == (
        ImageFacts("img-aaaaaaaa", "NORMAL", (Disk("snap-1", "SYSTEM_DISK", 50),)),
        ImageFacts("img-bbbbbbbb", "EXPORTING"),
    )
    (request,) = server.requests
    assert request.body == b'{"ImageIds":["img-aaaaaaaa","img-bbbbbbbb"],"Limit":100}'
    assert request.headers["x-tc-action"] == "DescribeImages"


@pytest.mark.parametrize(
    ("disk", "read"),
    [
        ({"DiskUsage": "SYSTEM_DISK", "DiskSize": 50}, Disk("", "SYSTEM_DISK", 50)),
        ({"SnapshotId": "snap-1", "DiskSize": "50"}, Disk("snap-1", "", 50)),
        ({"SnapshotId": 7, "DiskUsage": "DATA_DISK"}, Disk("", "DATA_DISK", 0)),
        ({"DiskSize": None}, Disk("", "", 0)),
        ({"DiskSize": "large"}, Disk("", "", 0)),
        ({"DiskSize": -1}, Disk("", "", 0)),
        ({"DiskSize": 2**63}, Disk("", "", 0)),
        ({"DiskSize": 50.0}, Disk("", "", 50)),
    ],
)
async def test_odd_field_leaves_the_others(
    server: ScriptedServer, cvm: CvmClient, disk: dict[str, object], read: Disk
) -> None:
    """What cannot be read is not known; the other fields and rows are."""
    good = {"SnapshotId": "snap-2", "DiskUsage": "DATA_DISK", "DiskSize": 20}
    rows: list[object] = [
        {"ImageId": "img-aaaaaaaa", "ImageState": 5, "SnapshotSet": [disk, "odd", good]},
        {"ImageId": "img-bbbbbbbb", "ImageState": "NORMAL", "SnapshotSet": {"odd": 1}},
        {"ImageId": None, "ImageState": "NORMAL"},
        "odd",
    ]
    server.respond(api({"ImageSet": rows, "RequestId": "r-3"}))
    assert await describe(cvm, "img-aaaaaaaa", "img-bbbbbbbb") == (
        ImageFacts("img-aaaaaaaa", "", (read, Disk("snap-2", "DATA_DISK", 20))),
        ImageFacts("img-bbbbbbbb", "NORMAL"),
    )


async def test_description_is_dated_by_the_servers_clock(
    server: ScriptedServer, cvm: CvmClient, clock: ServerClock
) -> None:
    """The signature has the server's time as far as it is known."""
    clock.offset = timedelta(hours=3)
    server.respond(api({"ImageSet": []}))
    assert await describe(cvm, "img-aaaaaaaa") == ()
    later = str(int((NOON + timedelta(hours=3)).timestamp()))
    assert server.requests[0].headers["x-tc-timestamp"] == later


async def test_refused_description_raises_the_code(server: ScriptedServer, cvm: CvmClient) -> None:
    """An API error is raised with its code and message."""
    error = {"Code": "InvalidImageId.NotFound", "Message": "img-a is not there."}
    server.respond(api({"Error": error, "RequestId": "r-4"}))
    with pytest.raises(CloudRefusal, match=r"NotFound: img-a is not there\.") as caught:
        await describe(cvm, "img-aaaaaaaa")
    assert caught.value.code == "InvalidImageId.NotFound"
    assert caught.value.http_status == 200


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (http("<html>log in</html>"), "Http200"),
        (http("<html>down</html>", status="503 Down"), "Http503"),
        (api({"RequestId": "r"}), "Http200"),
        (api({"ImageSet": [{"ImageState": "NORMAL"}]}), "Http200"),
        (api({"ImageSet": ["img-aaaaaaaa"]}), "Http200"),
        (api({"ImageSet": 7}), "Http200"),
    ],
)
async def test_unreadable_answer_is_not_an_empty_description(
    server: ScriptedServer, cvm: CvmClient, raw: bytes, code: str
) -> None:
    """An answer without valid images is refused under its HTTP status."""
    server.respond(raw)
    with pytest.raises(CloudRefusal, match="not an answer of the API") as caught:
        await describe(cvm, "img-aaaaaaaa")
    assert caught.value.code == code


@pytest.mark.parametrize("count", [0, 101])
async def test_zero_and_too_many_ids_are_not_sent(
    server: ScriptedServer, cvm: CvmClient, count: int
) -> None:
    """No ids would mean every image, and too many would be cut: neither is sent."""
    with pytest.raises(ValueError, match="1 to 100 images"):
        await describe(cvm, *["img-aaaaaaaa"] * count)
    assert server.requests == []


async def test_description_of_other_images_is_refused(
    server: ScriptedServer, cvm: CvmClient
) -> None:
    """An answer about images that were not asked for belongs to another request."""
    server.respond(api({"ImageSet": [{"ImageId": "img-other", "ImageState": "NORMAL"}]}))
    with pytest.raises(CloudRefusal, match="not asked for"):
        await describe(cvm, "img-aaaaaaaa")
