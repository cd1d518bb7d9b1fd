"""A vendor that differs from its documents: each option of the settings, over HTTP."""

import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from qcloud_cos import CosServiceError

from orchestrator.simulator import (
    BucketSettings,
    Delivery,
    Duration,
    Fault,
    ImageSettings,
    Simulator,
    read_changes,
)

from .clients import BUCKET, call, code_of, export, make_cos, post, run_in_thread

pytestmark = [
    pytest.mark.anyio,
    # the vendor's client leaves its pooled sockets to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

ONE, TWO = "img-00000001", "img-00000002"
PREFIX = "o-1/a_"


async def export_two_disks(
    http: httpx.AsyncClient, simulator: Simulator, **settings: Any
) -> tuple[str, ...]:
    """Export an image with two disks under a prefix; return CosPaths."""
    simulator.change(images={ONE: ImageSettings(sizes=(20, 31))})
    simulator.change(**read_changes(settings, simulator.settings))
    answer = await export(http, simulator, ONE, FileNamePrefixList=[PREFIX])
    return tuple(answer["CosPaths"])


def written(simulator: Simulator) -> list[tuple[str, int]]:
    """Return keys and GiB of the objects of the last export."""
    return [(stored.key, stored.size >> 30) for stored in simulator.exports[-1].objects]


async def head(simulator: Simulator, key: str, region: str = "ap-singapore") -> Any:
    """Return the headers of an object."""
    client = make_cos(simulator, region=region)
    return await run_in_thread(client.head_object, Bucket=BUCKET, Key=key)


async def listed(simulator: Simulator, prefix: str = "") -> list[str]:
    """Return the keys of the objects under a prefix."""
    page = await run_in_thread(make_cos(simulator).list_objects, Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for entry in page.get("Contents", [])]


async def uploading(simulator: Simulator, prefix: str = "") -> list[str]:
    """Return the keys of the uploads under a prefix."""
    page = await run_in_thread(
        make_cos(simulator).list_multipart_uploads, Bucket=BUCKET, Prefix=prefix
    )
    return [entry["Key"] for entry in page.get("Upload", [])]


@pytest.mark.parametrize(
    "form",
    [
        *("url", "encoded", "no-slash", "bucket-first", "uppercase"),
        *("system-only", "one-file", "empty"),
    ],
)
async def test_forms_of_cos_paths(simulator: Simulator, http: httpx.AsyncClient, form: str) -> None:
    """CosPaths have another form; the objects keep their documented names."""
    paths = await export_two_disks(http, simulator, cos_paths=form)
    keys = [key for key, _ in written(simulator)]
    assert all(key.startswith(f"{PREFIX}_{ONE}_") for key in keys)
    host = f"https://{BUCKET}.cos.ap-singapore.myqcloud.com"
    expected = {
        "url": [f"{host}/{key}" for key in keys],
        "no-slash": keys,
        "bucket-first": [f"/{BUCKET}/{key}" for key in keys],
        "uppercase": [f"/{PREFIX}{key[len(PREFIX) :].upper()}" for key in keys],
        "system-only": [f"/{keys[0]}"],
        "one-file": [f"/{PREFIX}_{ONE}.raw"],
        "empty": [],
    }
    if form == "encoded":
        assert [unquote(path) for path in paths] == [f"/{key}" for key in keys]
        assert not {"_", "-", "."} & set("".join(paths))
    else:
        assert list(paths) == expected[form]
    assert simulator.ledger[-1].cos_paths == paths


@pytest.mark.parametrize("names", ["uppercase", "gz", "split", "other-snapshots", "one-file"])
async def test_objects_have_other_names_than_cos_paths(
    simulator: Simulator, http: httpx.AsyncClient, names: str
) -> None:
    """Objects and uploads have names that CosPaths do not show."""
    paths = await export_two_disks(http, simulator, object_names=names)
    system, data = (path[1:] for path in paths)
    named = {
        "uppercase": [
            (PREFIX + key[len(PREFIX) :].upper(), n) for key, n in [(system, 20), (data, 31)]
        ],
        "gz": [(f"{system}.gz", 20), (f"{data}.gz", 31)],
        "split": [(f"{system}.0", 10), (f"{system}.1", 10), (f"{data}.0", 15), (f"{data}.1", 16)],
        "one-file": [(f"{PREFIX}_{ONE}.raw", 51)],
    }
    seen = written(simulator)
    if names == "other-snapshots":
        assert [len(key) for key, _ in seen] == [len(system), len(data)]
        assert {key for key, _ in seen}.isdisjoint({system, data})
    else:
        assert seen == named[names]
    simulator.change(skew=60.0)
    assert await uploading(simulator) == sorted(key for key, _ in seen)
    simulator.change(skew=250.0)
    assert await listed(simulator) == sorted(key for key, _ in seen)


async def test_tiny_objects(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Every object has 1 KiB."""
    await export_two_disks(http, simulator, object_sizes="tiny")
    assert [stored.size for stored in simulator.exports[0].objects] == [1024, 1024]


async def test_growing_objects(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """An object appears when its upload starts, and has its full size at the end."""
    await export_two_disks(http, simulator, growing_objects=True)
    key, gib = written(simulator)[0]
    assert await listed(simulator) == []
    sizes, tags = [], set()
    for skew in (51.0, 150.0, 251.0):
        simulator.change(skew=skew)
        headers = await head(simulator, key)
        sizes.append(int(headers["Content-Length"]) >> 30)
        tags.add(headers["ETag"])
    assert sizes[0] < 2
    assert 8 <= sizes[1] <= 12
    assert sizes[2] == gib
    assert len(tags) == 3


async def test_data_disks_come_later(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """The upload of the data disk begins when that of the system disk ends.

    The image is busy until both have ended.
    """
    await export_two_disks(http, simulator, data_disks_after=30.0)
    system, data = (key for key, _ in written(simulator))
    shown = []
    for skew in (60.0, 260.0, 290.0):
        simulator.change(skew=skew)
        busy = code_of(await export(http, simulator, ONE)) is not None
        shown.append((await uploading(simulator, "o-1"), await listed(simulator, "o-1"), busy))
    assert shown[:2] == [([system], [], True), ([data], [system], True)]
    assert shown[2] == ([], [data, system], False)


async def test_old_objects(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Until an export ends, its object keys lead to objects of last month.

    These objects have the documented names without a prefix.
    """
    simulator.change(old_objects=True, ignore_prefix=True)
    answer = await export(http, simulator, ONE)
    key = answer["CosPaths"][0][1:]
    before = await head(simulator, key)
    assert await listed(simulator, ONE) == sorted(path[1:] for path in answer["CosPaths"])
    simulator.change(skew=260.0)
    after = await head(simulator, key)
    days = [
        (time.time() - parsedate_to_datetime(one["Last-Modified"]).timestamp()) / 86_400
        for one in (before, after)
    ]
    assert [round(one) for one in days] == [30, 0]
    assert before["ETag"] != after["ETag"]
    assert await listed(simulator, "other") == []


async def test_listings_can_ignore_the_prefix(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Listings of objects and uploads show what is not under the prefix."""
    simulator.change(listings_ignore_prefix=True, skew=0.0)
    await export(http, simulator, ONE, OnlyExportRootDisk=True)
    simulator.change(skew=60.0)
    assert len(await uploading(simulator, "nothing")) == 1
    simulator.change(skew=260.0)
    assert len(await listed(simulator, "nothing")) == 1


async def test_head_can_find_anything(simulator: Simulator) -> None:
    """HEAD finds a large object that has just been written."""
    simulator.change(head_finds_anything=True)
    headers = await head(simulator, "nothing")
    assert int(headers["Content-Length"]) == 50 << 30
    assert time.time() - parsedate_to_datetime(headers["Last-Modified"]).timestamp() < 60


async def test_busy_images_can_be_accepted(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A second export begins; the image is busy until both have ended."""
    simulator.change(accept_busy_images=True)
    for skew in (0.0, 30.0):
        simulator.change(skew=skew)
        assert code_of(await export(http, simulator, ONE)) is None
    simulator.change(accept_busy_images=False, skew=260.0)
    assert code_of(await export(http, simulator, ONE)) == "InvalidParameterValue.InvalidImageState"
    simulator.change(skew=290.0)
    assert code_of(await export(http, simulator, ONE)) is None


async def test_code_of_the_cap(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """The cap can be refused with any code."""
    simulator.change(cap=1, cap_code="UnsupportedOperation.TooManyTasks")
    assert code_of(await export(http, simulator, ONE)) is None
    assert code_of(await export(http, simulator, TWO)) == "UnsupportedOperation.TooManyTasks"


@pytest.mark.parametrize("form", ["no-sizes", "no-snapshots", "other-snapshots", "nothing"])
async def test_forms_of_descriptions(
    simulator: Simulator, http: httpx.AsyncClient, form: str
) -> None:
    """Rows can lack sizes or snapshots, show other snapshots, or be missing.

    The other snapshots are not those of the objects.
    """
    documented = await call(http, simulator, "DescribeImages", {"ImageIds": [ONE]})
    simulator.change(describe=form)
    answer = await call(http, simulator, "DescribeImages", {"ImageIds": [ONE]})
    if form == "nothing":
        assert answer["ImageSet"] == []
        return
    row, was = answer["ImageSet"][0], documented["ImageSet"][0]
    snapshot = {} if form == "no-snapshots" else row["SnapshotSet"][0]
    assert ("SnapshotSet" in row) == (form != "no-snapshots")
    assert ("ImageSize" in row, "DiskSize" in snapshot) == (
        form != "no-sizes",
        form == "other-snapshots",
    )
    if snapshot:
        same = snapshot["SnapshotId"] == was["SnapshotSet"][0]["SnapshotId"]
        assert same == (form == "no-sizes")


async def test_wrong_date_headers(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Each service can send its own wrong Date header.

    Signatures are still checked by the true time.
    """
    simulator.change(cvm_date_skew=3600.0, cos_date_skew=-7200.0)
    assert round(await date_offset(http, simulator, "cvm") / 60) == 60
    assert round(await date_offset(http, simulator, "cos") / 60) == -120
    assert code_of(await export(http, simulator, ONE)) is None
    assert await listed(simulator) == []


async def test_clock_of_cos(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """COS uses its own clock for signatures, Date headers and object times.

    CVM does not use that clock.
    """
    await export(http, simulator, ONE, OnlyExportRootDisk=True)
    simulator.change(skew=260.0)
    key, _ = written(simulator)[0]
    seen = parsedate_to_datetime((await head(simulator, key))["Last-Modified"])
    simulator.change(cos_skew=120.0)
    later = parsedate_to_datetime((await head(simulator, key))["Last-Modified"])
    assert (later - seen).total_seconds() == 120
    assert round(await date_offset(http, simulator, "cos") / 20) == 19
    assert round(await date_offset(http, simulator, "cvm") / 20) == 13
    simulator.change(cos_skew=100_000.0)
    with pytest.raises(CosServiceError):
        await head(simulator, key)
    assert simulator.ledger[-1].code == "AccessDenied"
    assert code_of(await export(http, simulator, TWO)) is None


async def date_offset(http: httpx.AsyncClient, simulator: Simulator, service: str) -> float:
    """Return the seconds by which the Date header of a service is ahead."""
    if service == "cvm":
        answer = await post(http, simulator, "DescribeRegions", {})
    else:
        host = f"{BUCKET}.cos.ap-singapore.myqcloud.com"
        answer = await http.get(f"{simulator.url}/", headers={"Host": host})
    return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()


async def test_bucket_in_another_region(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """COS answers 301 with the bucket's region, and has the objects there."""
    simulator.change(buckets={BUCKET: BucketSettings(redirect="ap-tokyo")})
    await export(http, simulator, ONE, OnlyExportRootDisk=True)
    simulator.change(skew=260.0)
    key, _ = written(simulator)[0]
    host = f"{BUCKET}.cos.ap-singapore.myqcloud.com"
    signature = make_cos(simulator).get_auth(
        Method="HEAD", Bucket=BUCKET, Key=key, Headers={"Host": host}, Expired=3600
    )
    headers = {"Host": host, "Authorization": signature}
    answer = await http.head(f"{simulator.url}/{key}", headers=headers)
    assert (answer.status_code, answer.headers["x-cos-bucket-region"]) == (301, "ap-tokyo")
    assert answer.headers["Location"] == f"https://{BUCKET}.cos.ap-tokyo.myqcloud.com/{key}"
    assert simulator.ledger[-1].code == "PermanentRedirect"
    assert int((await head(simulator, key, "ap-tokyo"))["Content-Length"]) == 50 << 30


@pytest.mark.parametrize("after", [False, True])
async def test_redirect(simulator: Simulator, http: httpx.AsyncClient, after: bool) -> None:
    """A proxy answers with the address of its login page, before or after processing."""
    simulator.set_faults(Fault("redirect", after=after))
    given = {"ImageIds": [ONE], "BucketName": BUCKET}
    answer = await post(http, simulator, "ExportImages", given)
    assert (answer.status_code, answer.headers["Location"]) == (302, "https://login.invalid/")
    assert len(simulator.exports) == after


@pytest.mark.parametrize(
    ("kind", "missing"), [("no-task-id", "TaskId"), ("no-cos-paths", "CosPaths")]
)
async def test_answer_without_a_part(
    simulator: Simulator, http: httpx.AsyncClient, kind: str, missing: str
) -> None:
    """The export begins, but the answer lacks TaskId or CosPaths."""
    simulator.change(**read_changes({"faults": [{"kind": kind}]}, simulator.settings))
    answer = await export(http, simulator, ONE)
    assert {"TaskId", "CosPaths", "RequestId"} - answer.keys() == {missing}
    assert len(simulator.exports) == 1


async def test_split_delivery_leaves_out_the_last_part(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A partial delivery of split objects lacks the last part."""
    simulator.change(
        object_names="split", deliveries=(Delivery("partial"),), duration=Duration(seconds=1)
    )
    await export(http, simulator, ONE, OnlyExportRootDisk=True)
    assert [key[-2:] for key, _ in written(simulator)] == [".0"]
