"""The vendor's own COS client works with the simulator."""

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

from .clients import BUCKET, export, make_cos, run_in_thread

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
    """A simulator whose bucket has the system disks of five images, under one prefix."""
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


def read_keys(simulator: Simulator) -> list[str]:
    """Return the keys that the exports have written."""
    return sorted(stored.key for one in simulator.exports for stored in one.objects)


async def test_head_shows_size_and_checksums(filled: Simulator) -> None:
    """HEAD shows size, multipart ETag, CRC64 and time, but not the class STANDARD."""
    stored = filled.exports[0].objects[0]
    headers = await run_in_thread(make_cos(filled).head_object, Bucket=BUCKET, Key=stored.key)
    assert int(headers["Content-Length"]) == stored.size
    assert headers["ETag"] == f'"{stored.etag}"'
    assert "-" in stored.etag
    assert headers["x-cos-hash-crc64ecma"] == str(stored.crc64)
    assert headers["Last-Modified"].endswith("GMT")
    assert "x-cos-storage-class" not in headers


async def test_head_shows_another_storage_class(filled: Simulator) -> None:
    """HEAD shows the storage class if it is not STANDARD."""
    filled.change(buckets={BUCKET: BucketSettings(storage_class="ARCHIVE")})
    headers = await run_in_thread(
        make_cos(filled).head_object, Bucket=BUCKET, Key=read_keys(filled)[0]
    )
    assert headers["x-cos-storage-class"] == "ARCHIVE"


async def test_listing_has_pages(filled: Simulator) -> None:
    """Pages of two contain every key once and in order.

    The keys are sent encoded, and the client decodes them.
    """
    client, marker, seen, pages = make_cos(filled), "", [], 0
    while True:
        page = await run_in_thread(
            client.list_objects, Bucket=BUCKET, Prefix="night run/", Marker=marker, MaxKeys=2
        )
        seen += [entry["Key"] for entry in page["Contents"]]
        pages += 1
        if page["IsTruncated"] == "false":
            break
        marker = page["NextMarker"]
    assert seen == read_keys(filled)
    assert pages == 3


async def test_delimiter_groups_keys(filled: Simulator) -> None:
    """Keys up to the delimiter appear once, as a common prefix."""
    page = await run_in_thread(make_cos(filled).list_objects, Bucket=BUCKET, Delimiter="/")
    assert page["CommonPrefixes"] == [{"Prefix": "night run/"}]
    assert "Contents" not in page


async def test_prefix_without_keys_lists_nothing(filled: Simulator) -> None:
    """The listing is empty and complete."""
    page = await run_in_thread(make_cos(filled).list_objects, Bucket=BUCKET, Prefix="other")
    assert page["IsTruncated"] == "false"
    assert "Contents" not in page


async def test_upload_listing_has_pages(filled: Simulator, http: httpx.AsyncClient) -> None:
    """Uploads in progress are listed with their ids, page by page."""
    filled.change(duration=Duration(seconds=3600))
    answer = await export(http, filled, *IMAGES, OnlyExportRootDisk=True)
    client, key, upload, seen = make_cos(filled), "", "", []
    while True:
        page = await run_in_thread(
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


async def test_head_bucket(filled: Simulator) -> None:
    """HEAD Bucket succeeds for a bucket that exists."""
    assert await run_in_thread(make_cos(filled).bucket_exists, Bucket=BUCKET)


async def test_head_of_a_missing_key(filled: Simulator) -> None:
    """HEAD answers 404 without a body."""
    error = await expect_refusal(make_cos(filled).head_object, Bucket=BUCKET, Key="nothing")
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
async def test_wrong_credential_is_refused(
    filled: Simulator, key: Key, status: int, code: str
) -> None:
    """Key, id and token each have a code, in XML that the client reads."""
    error = await expect_refusal(make_cos(filled, key).list_objects, Bucket=BUCKET)
    assert (error.get_status_code(), error.get_error_code()) == (status, code)


async def test_temporary_key_works_with_its_token(filled: Simulator) -> None:
    """The token is sent in a signed header."""
    page = await run_in_thread(make_cos(filled, TEMPORARY).list_objects, Bucket=BUCKET)
    assert len(page["Contents"]) == len(IMAGES)


@pytest.mark.parametrize(
    ("skew", "code"), [(-3600.0, "RequestTimeTooSkewed"), (86_400.0, "AccessDenied")]
)
async def test_signature_has_a_period(filled: Simulator, skew: float, code: str) -> None:
    """A signature is refused before and after its period."""
    filled.change(skew=skew)
    error = await expect_refusal(make_cos(filled).list_objects, Bucket=BUCKET)
    assert error.get_error_code() == code


@pytest.mark.parametrize(
    ("bucket", "code"),
    [
        (BucketSettings(missing=True), "NoSuchBucket"),
        (BucketSettings(region="ap-tokyo"), "NoSuchBucket"),
        (BucketSettings(deny=("GetBucket",)), "AccessDenied"),
    ],
)
async def test_missing_or_denied_bucket(
    filled: Simulator, bucket: BucketSettings, code: str
) -> None:
    """The listing is refused with the right code."""
    filled.change(buckets={BUCKET: bucket})
    error = await expect_refusal(make_cos(filled).list_objects, Bucket=BUCKET)
    assert error.get_error_code() == code


async def test_operations_are_denied_one_by_one(filled: Simulator) -> None:
    """If HEAD and the listing of uploads are denied, objects are still listed."""
    denied = BucketSettings(deny=("HeadObject", "HeadBucket", "ListMultipartUploads"))
    filled.change(buckets={BUCKET: denied})
    client = make_cos(filled)
    for call in (client.head_object, client.head_bucket, client.list_multipart_uploads):
        named = {"Key": read_keys(filled)[0]} if call == client.head_object else {}
        error = await expect_refusal(call, Bucket=BUCKET, **named)
        assert error.get_status_code() == 403
    assert (await run_in_thread(client.list_objects, Bucket=BUCKET))["Contents"]


async def test_cos_refuses_by_rule(filled: Simulator) -> None:
    """A rule for COS raises a code of COS, with its status."""
    filled.change(codes=(Refusal("SlowDown", action="cos", times=1),))
    error = await expect_refusal(make_cos(filled).list_objects, Bucket=BUCKET)
    assert (error.get_status_code(), error.get_error_code()) == (503, "SlowDown")
    assert await run_in_thread(make_cos(filled).list_objects, Bucket=BUCKET)


async def test_put_is_refused(filled: Simulator) -> None:
    """PUT is a MethodNotAllowed: the simulated COS has only HEAD and listings."""
    error = await expect_refusal(make_cos(filled).put_object, Bucket=BUCKET, Key="a", Body=b"x")
    assert error.get_error_code() == "MethodNotAllowed"


async def test_unsigned_request_is_denied(filled: Simulator, http: httpx.AsyncClient) -> None:
    """A bucket cannot be read without a signature."""
    host = f"{BUCKET}.cos.ap-singapore.myqcloud.com"
    answer = await http.get(f"{filled.url}/", headers={"Host": host})
    assert answer.status_code == 403
    assert "<Code>AccessDenied</Code>" in answer.text


async def test_upload_becomes_an_object(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """First there is nothing, then only the multipart upload, then only the object."""
    await export(http, simulator, IMAGES[0], OnlyExportRootDisk=True)
    client, seen = make_cos(simulator), []
    for skew in (0, 60, 260):
        simulator.change(skew=float(skew))
        uploads = await run_in_thread(client.list_multipart_uploads, Bucket=BUCKET)
        objects = await run_in_thread(client.list_objects, Bucket=BUCKET)
        seen.append(("Upload" in uploads, "Contents" in objects))
    assert seen == [(False, False), (True, False), (False, True)]


async def test_hidden_uploads_are_not_listed(filled: Simulator, http: httpx.AsyncClient) -> None:
    """With ``hide_uploads``, the upload listing is empty and echoes its parameters."""
    filled.change(duration=Duration(seconds=3600), hide_uploads=True)
    await export(http, filled, *IMAGES)
    listed = await run_in_thread(
        make_cos(filled).list_multipart_uploads, Bucket=BUCKET, Prefix="img-", MaxUploads=2
    )
    assert "Upload" not in listed
    assert (listed["Prefix"], listed["MaxUploads"]) == ("img-", "2")
    assert (listed["IsTruncated"], listed["NextKeyMarker"]) == ("false", None)
    assert (await run_in_thread(make_cos(filled).list_objects, Bucket=BUCKET))["Contents"]
    filled.change(hide_uploads=False)
    assert (await run_in_thread(make_cos(filled).list_multipart_uploads, Bucket=BUCKET))["Upload"]


async def test_empty_listings_do_not_affect_head(
    filled: Simulator, http: httpx.AsyncClient
) -> None:
    """With ``empty_listings``, both listings are empty, but HEAD finds the object.

    The listings echo their parameters.
    """
    filled.change(duration=Duration(seconds=3600), empty_listings=True)
    await export(http, filled, *IMAGES)
    client, key = make_cos(filled), filled.exports[0].objects[0].key
    uploads = await run_in_thread(client.list_multipart_uploads, Bucket=BUCKET, Prefix="img-")
    objects = await run_in_thread(
        client.list_objects, Bucket=BUCKET, Prefix=FOLDER, Marker="a b", MaxKeys=2, Delimiter="/"
    )
    assert "Upload" not in uploads
    assert (uploads["Bucket"], uploads["Prefix"]) == (BUCKET, "img-")
    assert not {"Contents", "CommonPrefixes", "NextMarker"} & objects.keys()
    echoed = {name: objects[name] for name in ("Name", "Prefix", "Marker", "MaxKeys", "Delimiter")}
    assert list(echoed.values()) == [BUCKET, FOLDER, "a b", "2", "/"]
    assert objects["IsTruncated"] == "false"
    assert await run_in_thread(client.head_object, Bucket=BUCKET, Key=key)


async def expect_refusal(call: Any, **named: Any) -> Any:
    """Return the error that a call of the vendor's client raises."""
    with pytest.raises(CosServiceError) as refusal:
        await run_in_thread(call, **named)
    return refusal.value
