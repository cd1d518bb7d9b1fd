"""The vendor's own COS client finds in the simulator what it expects of the vendor."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from qcloud_cos import CosServiceError

from orchestrator.simulator import (
    DEFAULT_KEY,
    BucketSettings,
    Duration,
    Key,
    Refusal,
    Settings,
    Simulator,
    SimulatorOptions,
)

from .callers import BUCKET, cos, export, in_thread

pytestmark = [
    pytest.mark.anyio,
    # the vendor's client leaves its pooled sockets to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

TEMPORARY = Key("AKIDtemporary", "temporary-key", token="token-of-today")
IMAGES = tuple(f"img-0000000{n}" for n in range(5))
FOLDER = "night run/ü"


@pytest.fixture
async def filled(http: httpx.AsyncClient) -> AsyncIterator[Simulator]:
    """A simulator whose bucket holds the system disks of five images, under one prefix."""
    settings = Settings(duration=Duration(seconds=0), queue_delay=0, limits={})
    expired = replace(TEMPORARY, secret_id="AKIDexpired", expires_at=time.time() - 1)
    options = SimulatorOptions(settings=settings, keys=(DEFAULT_KEY, TEMPORARY, expired))
    async with Simulator(options) as running:
        await export(
            http,
            running,
            *IMAGES,
            FileNamePrefixList=[FOLDER] * len(IMAGES),
            OnlyExportRootDisk=True,
            ExportFormat="QCOW2",
        )
        yield running


def keys_of(simulator: Simulator) -> list[str]:
    """The keys that the exports have written."""
    return sorted(stored.key for one in simulator.exports for stored in one.objects)


async def test_an_object_shows_its_size_and_sums(filled: Simulator) -> None:
    """HEAD tells size, ETag of an upload in parts, CRC64 and time; no class when STANDARD."""
    stored = filled.exports[0].objects[0]
    headers = await in_thread(cos(filled).head_object, Bucket=BUCKET, Key=stored.key)
    assert int(headers["Content-Length"]) == stored.size
    assert headers["ETag"] == f'"{stored.etag}"'
    assert "-" in stored.etag
    assert headers["x-cos-hash-crc64ecma"] == str(stored.crc64)
    assert headers["Last-Modified"].endswith("GMT")
    assert "x-cos-storage-class" not in headers


async def test_another_storage_class_is_told(filled: Simulator) -> None:
    """HEAD names the storage class where it is not STANDARD."""
    filled.change(buckets={BUCKET: BucketSettings(storage_class="ARCHIVE")})
    headers = await in_thread(cos(filled).head_object, Bucket=BUCKET, Key=keys_of(filled)[0])
    assert headers["x-cos-storage-class"] == "ARCHIVE"


async def test_listings_come_in_pages(filled: Simulator) -> None:
    """Pages of two hold every key once, in order, encoded and decoded by the client."""
    client, marker, seen, pages = cos(filled), "", [], 0
    while True:
        page = await in_thread(
            client.list_objects, Bucket=BUCKET, Prefix="night run/", Marker=marker, MaxKeys=2
        )
        seen += [entry["Key"] for entry in page["Contents"]]
        pages += 1
        if page["IsTruncated"] == "false":
            break
        marker = page["NextMarker"]
    assert seen == keys_of(filled)
    assert pages == 3


async def test_a_delimiter_groups_keys(filled: Simulator) -> None:
    """Keys up to the delimiter appear once, as a common prefix."""
    page = await in_thread(cos(filled).list_objects, Bucket=BUCKET, Delimiter="/")
    assert page["CommonPrefixes"] == [{"Prefix": "night run/"}]
    assert "Contents" not in page


async def test_a_prefix_without_keys_lists_nothing(filled: Simulator) -> None:
    """The listing is empty and whole."""
    page = await in_thread(cos(filled).list_objects, Bucket=BUCKET, Prefix="other")
    assert page["IsTruncated"] == "false"
    assert "Contents" not in page


async def test_uploads_come_in_pages(filled: Simulator, http: httpx.AsyncClient) -> None:
    """Uploads that go on are listed with their ids, page by page."""
    filled.change(duration=Duration(seconds=3600))
    answer = await export(http, filled, *IMAGES, OnlyExportRootDisk=True)
    client, key, upload, seen = cos(filled), "", "", []
    while True:
        page = await in_thread(
            client.list_multipart_uploads,
            Bucket=BUCKET,
            Prefix="img-",
            KeyMarker=key,
            UploadIdMarker=upload,
            MaxUploads=2,
        )
        seen += [f"/{entry['Key']}" for entry in page["Upload"]]
        if page["IsTruncated"] == "false":
            break
        key, upload = page["NextKeyMarker"], page["NextUploadIdMarker"]
    assert seen == sorted(answer["CosPaths"])


async def test_a_bucket_answers_to_head(filled: Simulator) -> None:
    """HEAD Bucket succeeds on a bucket that exists."""
    assert await in_thread(cos(filled).bucket_exists, Bucket=BUCKET)


async def test_a_key_that_is_not_there_is_not_found(filled: Simulator) -> None:
    """HEAD says 404 without a body."""
    error = await refused(cos(filled).head_object, Bucket=BUCKET, Key="nothing")
    assert error.get_status_code() == 404
    assert filled.ledger[-1].code == "NoSuchKey"


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (replace(DEFAULT_KEY, secret_key="another"), 403, "SignatureDoesNotMatch"),
        (replace(DEFAULT_KEY, secret_id="AKIDnobody"), 403, "InvalidAccessKeyId"),
        (replace(TEMPORARY, token=None), 403, "InvalidAccessKeyId"),
        (replace(TEMPORARY, secret_id="AKIDexpired"), 400, "ExpiredToken"),
    ],
)
async def test_a_wrong_credential_is_refused(
    filled: Simulator, key: Key, status: int, code: str
) -> None:
    """Key, id and token each have their code, in XML that the client reads."""
    error = await refused(cos(filled, key).list_objects, Bucket=BUCKET)
    assert (error.get_status_code(), error.get_error_code()) == (status, code)


async def test_a_temporary_key_works_with_its_token(filled: Simulator) -> None:
    """The token travels in a header that is signed."""
    page = await in_thread(cos(filled, TEMPORARY).list_objects, Bucket=BUCKET)
    assert len(page["Contents"]) == len(IMAGES)


@pytest.mark.parametrize(
    ("skew", "code"), [(-3600.0, "RequestTimeTooSkewed"), (86_400.0, "AccessDenied")]
)
async def test_a_signature_has_its_time(filled: Simulator, skew: float, code: str) -> None:
    """Before and after its period a signature is refused."""
    filled.change(skew=skew)
    error = await refused(cos(filled).list_objects, Bucket=BUCKET)
    assert error.get_error_code() == code


@pytest.mark.parametrize(
    ("bucket", "code"),
    [
        (BucketSettings(missing=True), "NoSuchBucket"),
        (BucketSettings(region="ap-tokyo"), "NoSuchBucket"),
        (BucketSettings(deny=("GetBucket",)), "AccessDenied"),
    ],
)
async def test_a_bucket_may_be_missing_elsewhere_or_closed(
    filled: Simulator, bucket: BucketSettings, code: str
) -> None:
    """The listing is refused with the code for it."""
    filled.change(buckets={BUCKET: bucket})
    error = await refused(cos(filled).list_objects, Bucket=BUCKET)
    assert error.get_error_code() == code


async def test_operations_are_denied_one_by_one(filled: Simulator) -> None:
    """Where HEAD and uploads are denied, listing still works."""
    denied = BucketSettings(deny=("HeadObject", "HeadBucket", "ListMultipartUploads"))
    filled.change(buckets={BUCKET: denied})
    client = cos(filled)
    for call in (client.head_object, client.head_bucket, client.list_multipart_uploads):
        named = {"Key": keys_of(filled)[0]} if call == client.head_object else {}
        error = await refused(call, Bucket=BUCKET, **named)
        assert error.get_status_code() == 403
    assert (await in_thread(client.list_objects, Bucket=BUCKET))["Contents"]


async def test_cos_refuses_by_rule(filled: Simulator) -> None:
    """A rule for COS raises a code of COS, with its status."""
    filled.change(codes=(Refusal("SlowDown", action="cos", times=1),))
    error = await refused(cos(filled).list_objects, Bucket=BUCKET)
    assert (error.get_status_code(), error.get_error_code()) == (503, "SlowDown")
    assert await in_thread(cos(filled).list_objects, Bucket=BUCKET)


async def test_writing_is_not_what_this_cos_is_for(filled: Simulator) -> None:
    """A PUT is refused as a method, not misread."""
    error = await refused(cos(filled).put_object, Bucket=BUCKET, Key="a", Body=b"x")
    assert error.get_error_code() == "MethodNotAllowed"


async def test_an_unsigned_request_is_denied(filled: Simulator, http: httpx.AsyncClient) -> None:
    """Nobody reads a bucket without a signature."""
    host = f"{BUCKET}.cos.ap-singapore.myqcloud.com"
    answer = await http.get(f"{filled.url}/", headers={"Host": host})
    assert answer.status_code == 403
    assert "<Code>AccessDenied</Code>" in answer.text


async def test_an_upload_becomes_an_object(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Queued there is nothing, then the multipart upload alone, then the object alone."""
    await export(http, simulator, IMAGES[0], OnlyExportRootDisk=True)
    client, seen = cos(simulator), []
    for skew in (0, 60, 260):
        simulator.change(skew=float(skew))
        uploads = await in_thread(client.list_multipart_uploads, Bucket=BUCKET)
        objects = await in_thread(client.list_objects, Bucket=BUCKET)
        seen.append(("Upload" in uploads, "Contents" in objects))
    assert seen == [(False, False), (True, False), (False, True)]


async def test_hidden_uploads_are_not_listed(filled: Simulator, http: httpx.AsyncClient) -> None:
    """With ``hide_uploads`` the listing of uploads is empty and echoes its parameters."""
    filled.change(duration=Duration(seconds=3600), hide_uploads=True)
    await export(http, filled, *IMAGES)
    listed = await in_thread(
        cos(filled).list_multipart_uploads, Bucket=BUCKET, Prefix="img-", MaxUploads=2
    )
    assert "Upload" not in listed
    assert (listed["Prefix"], listed["MaxUploads"]) == ("img-", "2")
    assert (listed["IsTruncated"], listed["NextKeyMarker"]) == ("false", None)
    assert (await in_thread(cos(filled).list_objects, Bucket=BUCKET))["Contents"]
    filled.change(hide_uploads=False)
    assert (await in_thread(cos(filled).list_multipart_uploads, Bucket=BUCKET))["Upload"]


async def test_empty_listings_leave_head_alone(filled: Simulator, http: httpx.AsyncClient) -> None:
    """With ``empty_listings`` both listings are empty and echo; HEAD finds the object."""
    filled.change(duration=Duration(seconds=3600), empty_listings=True)
    await export(http, filled, *IMAGES)
    client, key = cos(filled), filled.exports[0].objects[0].key
    uploads = await in_thread(client.list_multipart_uploads, Bucket=BUCKET, Prefix="img-")
    objects = await in_thread(
        client.list_objects, Bucket=BUCKET, Prefix=FOLDER, Marker="a b", MaxKeys=2, Delimiter="/"
    )
    assert "Upload" not in uploads
    assert (uploads["Bucket"], uploads["Prefix"]) == (BUCKET, "img-")
    assert not {"Contents", "CommonPrefixes", "NextMarker"} & objects.keys()
    echoed = {name: objects[name] for name in ("Name", "Prefix", "Marker", "MaxKeys", "Delimiter")}
    assert list(echoed.values()) == [BUCKET, FOLDER, "a b", "2", "/"]
    assert objects["IsTruncated"] == "false"
    assert await in_thread(client.head_object, Bucket=BUCKET, Key=key)


async def refused(call: Any, **named: Any) -> Any:
    """The error that a call of the vendor's client ends with."""
    with pytest.raises(CosServiceError) as refusal:
        await in_thread(call, **named)
    return refusal.value
