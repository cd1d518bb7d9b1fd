"""ExportImages: accepted requests, object keys, and all reasons to refuse."""

from typing import Any

import httpx
import pytest

from orchestrator.simulator import BucketSettings, ImageSettings, Refusal, Simulator
from orchestrator.simulator.error_messages import COMMON_MESSAGES, EXPORT_MESSAGES

from .clients import BUCKET, call, code_of, export, make_cos, run_in_thread

pytestmark = pytest.mark.anyio

ONE, TWO = "img-00000001", "img-00000002"


async def test_object_keys_have_the_vendors_form(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A key has prefix, image, usage, snapshot, and the format in lower case."""
    simulator.change(images={ONE: ImageSettings(sizes=(20, 30))})
    given = {"FileNamePrefixList": ["nightly"], "ExportFormat": "VMDK"}
    system, data = (await export(http, simulator, ONE, **given))["CosPaths"]
    assert system.startswith(f"/nightly_{ONE}_system_snap-")
    assert data.startswith(f"/nightly_{ONE}_data_snap-")
    assert system.endswith(".vmdk")


async def test_ignored_prefix_is_in_no_key(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """With ``ignore_prefix``, paths, uploads and objects lack the prefix.

    The ledger has the prefix.
    """
    simulator.change(ignore_prefix=True)
    given = {"FileNamePrefixList": ["nightly", "nightly"], "OnlyExportRootDisk": True}
    paths = (await export(http, simulator, ONE, TWO, **given))["CosPaths"]
    assert [path.partition("_system_")[0] for path in paths] == [f"/{ONE}", f"/{TWO}"]
    for one, path in zip(simulator.exports, paths, strict=True):
        assert [f"/{upload.key}" for upload in one.uploads] == [path]
        assert [f"/{stored.key}" for stored in one.objects] == [path]
    assert simulator.ledger[0].prefixes == ("nightly", "nightly")


async def test_ignored_prefix_is_still_checked(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """With ``ignore_prefix`` a prefix list of the wrong length is still refused."""
    simulator.change(ignore_prefix=True)
    answer = await export(http, simulator, ONE, FileNamePrefixList=["a", "b"])
    assert code_of(answer) == "InvalidParameterValue.InvalidFileNamePrefixList"


async def test_only_root_disk(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """OnlyExportRootDisk leaves out the data disks."""
    simulator.change(images={ONE: ImageSettings(sizes=(20, 30, 40))})
    answer = await export(http, simulator, ONE, OnlyExportRootDisk=True)
    assert len(answer["CosPaths"]) == 1


async def test_several_images_share_a_task(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """An export of several images has one TaskId and one list of paths.

    The cap counts one task.
    """
    simulator.change(cap=1, images={ONE: ImageSettings(sizes=(20, 30)), TWO: ImageSettings()})
    answer = await export(http, simulator, ONE, TWO, OnlyExportRootDisk=True)
    assert {one.task_id for one in simulator.exports} == {answer["TaskId"]}
    assert [one.image_id for one in simulator.exports] == [ONE, TWO]
    assert len(answer["CosPaths"]) == 2


async def test_one_bad_image_refuses_all(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """No export begins if one image of several cannot be exported."""
    simulator.change(images={TWO: ImageSettings(missing=True)})
    assert code_of(await export(http, simulator, ONE, TWO)) == "InvalidImageId.NotFound"
    assert not simulator.exports


async def test_task_ids_are_consecutive(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Each task has the next number."""
    first = await export(http, simulator, ONE)
    second = await export(http, simulator, TWO)
    assert second["TaskId"] == first["TaskId"] + 1


async def test_busy_image_is_refused(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """During an export the same image is refused; afterwards it is exported again."""
    await export(http, simulator, ONE)
    busy = "InvalidParameterValue.InvalidImageState"
    assert code_of(await export(http, simulator, ONE, ExportFormat="VHD")) == busy
    simulator.change(skew=260.0)
    assert code_of(await export(http, simulator, ONE)) is None
    assert [one.duplicate for one in simulator.exports] == [False, True]


async def test_cap_is_held_and_freed(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """At the cap the next request is refused until an export ends or the cap rises."""
    full = "LimitExceeded.ExportImageTaskLimitExceeded"
    simulator.change(cap=2, occupied=1)
    assert code_of(await export(http, simulator, ONE)) is None
    assert code_of(await export(http, simulator, TWO)) == full
    simulator.change(occupied=0)
    assert code_of(await export(http, simulator, TWO)) is None
    assert code_of(await export(http, simulator, "img-00000003")) == full
    simulator.change(skew=260.0)
    assert code_of(await export(http, simulator, "img-00000003")) is None


async def test_cap_counts_each_region_separately(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A full region does not affect another."""
    simulator.change(cap=1)
    given = {"ImageIds": [ONE], "BucketName": BUCKET}
    for region in ("ap-tokyo", "ap-seoul"):
        assert code_of(await call(http, simulator, "ExportImages", given, region=region)) is None


async def test_region_can_have_its_own_cap(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """The cap of a region replaces the general cap."""
    simulator.change(cap=1, caps={"ap-tokyo": 0})
    given = {"ImageIds": [ONE], "BucketName": BUCKET}
    answers = [
        await call(http, simulator, "ExportImages", given, region=region)
        for region in ("ap-tokyo", "ap-seoul")
    ]
    full = "LimitExceeded.ExportImageTaskLimitExceeded"
    assert [code_of(answer) for answer in answers] == [full, None]


async def test_dry_run_exports_nothing(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A good dry run succeeds without a TaskId, or has the code from the settings."""
    answer = await export(http, simulator, ONE, DryRun=True)
    assert answer.keys() == {"RequestId"}
    simulator.change(dry_run_code="DryRunOperation")
    assert code_of(await export(http, simulator, ONE, DryRun=True)) == "DryRunOperation"
    simulator.change(images={ONE: ImageSettings(encrypted=True)})
    assert code_of(await export(http, simulator, ONE, DryRun=True)) not in {None, "DryRunOperation"}
    assert not simulator.exports


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ImageIds": []}, "InvalidParameter.ImageIdsSnapshotIdsMustOne"),
        ({"SnapshotIds": ["snap-1"]}, "InvalidParameter.ImageIdsSnapshotIdsMustOne"),
        ({"ImageIds": [], "SnapshotIds": ["snap-1"]}, "InvalidParameter.SnapshotNotFound"),
        ({"ImageIds": ["img-1"]}, "InvalidImageId.Malformed"),
        ({"ImageIds": [ONE, ONE]}, "InvalidParameterValue"),
        (
            {"ImageIds": [f"img-{n:08}" for n in range(101)]},
            "InvalidParameterValue.LimitExceeded",
        ),
        ({"FileNamePrefixList": ["a", "b"]}, "InvalidParameterValue.InvalidFileNamePrefixList"),
        ({"FileNamePrefixList": ["a" * 850]}, "InvalidParameterValue.TooLarge"),
        ({"ExportFormat": "raw"}, "InvalidParameterValue"),
        ({"BucketName": None}, "MissingParameter"),
        ({"BucketName": "backup"}, "InvalidParameterValue.InvalidAppIdFormat"),
        ({"BucketName": "missing-1250000000"}, "InvalidParameterValue.BucketNotFound"),
        ({"BucketName": "tokyo-1250000000"}, "InvalidParameterValue.BucketNotFound"),
        (
            {"BucketName": "closed-1250000000"},
            "InvalidParameterValue.InvalidBucketPermissionForExport",
        ),
        ({"RoleName": "Absent"}, "AuthFailure.CamRoleNameAuthenticateFailed"),
    ],
)
async def test_wrong_requests_have_their_codes(
    simulator: Simulator, http: httpx.AsyncClient, given: dict[str, Any], expected: str
) -> None:
    """Lists, ids, names, bucket and role are each checked."""
    simulator.change(
        absent_roles=("Absent",),
        buckets={
            "missing-1250000000": BucketSettings(missing=True),
            "tokyo-1250000000": BucketSettings(region="ap-tokyo"),
            "closed-1250000000": BucketSettings(deny=("ExportImages",)),
        },
    )
    assert code_of(await export(http, simulator, ONE, **given)) == expected
    assert not simulator.exports


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (ImageSettings(region="ap-tokyo"), "InvalidImageId.NotFound"),
        (ImageSettings(type="PUBLIC_IMAGE"), "UnsupportedOperation.PublicImageExportUnsupported"),
        (ImageSettings(type="SHARED_IMAGE"), "UnsupportedOperation.SharedImageExportUnsupported"),
        (ImageSettings(market=True), "UnsupportedOperation.MarketImageExportUnsupported"),
        (ImageSettings(encrypted=True), "UnsupportedOperation.EncryptedImagesNotSupported"),
        (ImageSettings(platform="Windows"), "UnsupportedOperation.WindowsImageExportUnsupported"),
        (ImageSettings(platform="RedHat"), "UnsupportedOperation.RedHatImageExportUnsupported"),
        (ImageSettings(sizes=(501,)), "UnsupportedOperation.ImageTooLargeExportUnsupported"),
        (ImageSettings(state="CREATEFAILED"), "InvalidParameterValue.InvalidImageState"),
    ],
)
async def test_images_are_refused_by_their_properties(
    simulator: Simulator, http: httpx.AsyncClient, image: ImageSettings, expected: str
) -> None:
    """Type, system, encryption, size and state of an image each have a code."""
    simulator.change(images={ONE: image})
    assert code_of(await export(http, simulator, ONE)) == expected


@pytest.mark.parametrize("name", [*COMMON_MESSAGES, *EXPORT_MESSAGES, "Never.SeenBefore"])
async def test_every_code_can_be_raised_for_an_image(
    simulator: Simulator, http: httpx.AsyncClient, name: str
) -> None:
    """A rule raises its code once, with a message, and only for its image."""
    simulator.change(codes=(Refusal(name, images=(ONE,), times=1),))
    assert code_of(await export(http, simulator, TWO)) is None
    refused = await export(http, simulator, ONE)
    assert code_of(refused) == name
    assert refused["Error"]["Message"].endswith(".")
    assert code_of(await export(http, simulator, ONE)) is None


def test_all_codes_of_the_vendor_exist() -> None:
    """There are 38 common codes and 22 of ExportImages, each with its own message."""
    assert (len(COMMON_MESSAGES), len(EXPORT_MESSAGES)) == (38, 22)
    messages = {**COMMON_MESSAGES, **EXPORT_MESSAGES}
    assert len(set(messages.values())) == 60


async def test_error_can_hide_an_export(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A refusal after processing leaves a running export, and the ledger records it."""
    simulator.change(codes=(Refusal("InternalError", after=True),))
    assert code_of(await export(http, simulator, ONE)) == "InternalError"
    assert [one.image_id for one in simulator.exports] == [ONE]
    assert (simulator.ledger[0].accepted, simulator.ledger[0].code) == (True, "InternalError")


async def test_random_refusals_follow_the_seed(http: httpx.AsyncClient) -> None:
    """With the same seed the same requests are refused; with chance 0.5 some are."""
    runs = []
    for _ in range(2):
        async with Simulator() as simulator:
            simulator.change(
                limits={}, cap=None, codes=(Refusal("ResourceInsufficient", chance=0.5),)
            )
            answers = [await export(http, simulator, f"img-{n:08}") for n in range(20)]
            runs.append([{**one, "RequestId": one["RequestId"]} for one in answers])
    assert runs[0] == runs[1]
    assert 0 < sum(code_of(one) is None for one in runs[0]) < 20


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the vendor's pool
async def test_raw_objects_are_as_large_as_the_disk(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """RAW has all bytes of the disk; other formats have fewer."""
    simulator.change(images={ONE: ImageSettings(sizes=(20,)), TWO: ImageSettings(sizes=(20,))})
    raw = await export(http, simulator, ONE)
    small = await export(http, simulator, TWO, ExportFormat="QCOW2")
    simulator.change(skew=260.0)
    sizes = []
    for answer in (raw, small):
        key = answer["CosPaths"][0][1:]
        headers = await run_in_thread(make_cos(simulator).head_object, Bucket=BUCKET, Key=key)
        sizes.append(int(headers["Content-Length"]))
    assert sizes[0] == 20 << 30
    assert 0 < sizes[1] < sizes[0]
