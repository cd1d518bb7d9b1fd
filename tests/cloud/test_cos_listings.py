"""Listings of objects and uploads: complete, and never mistaken for an empty one."""

from datetime import datetime

import pytest

from orchestrator.cloud.cos import CosClient
from orchestrator.errors import CloudRefusal
from orchestrator.model import ObjectFacts, UploadFacts
from tests.cloud.scripted_server import NOON, ScriptedServer, http

from .bucket_reads import BUCKET, Read, every_listing, list_objects, list_uploads

pytestmark = pytest.mark.anyio

LISTED = "2026-03-01T12:00:00.000Z"


def objects(*entries: str, truncated: str = "false", marker: str = "") -> bytes:
    body = f"<IsTruncated>{truncated}</IsTruncated><NextMarker>{marker}</NextMarker>"
    return http(f"<ListBucketResult>{body}{''.join(entries)}</ListBucketResult>")


def listed(key: str, extra: str = "") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{LISTED}</LastModified>"
        f'<ETag>"abc-3"</ETag><Size>7</Size>{extra}</Contents>'
    )


def uploads(*entries: str, truncated: str = "false", key: str = "", upload: str = "") -> bytes:
    return http(
        f"<ListMultipartUploadsResult><IsTruncated>{truncated}</IsTruncated>"
        f"<NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>{upload}</NextUploadIdMarker>"
        f"{''.join(entries)}</ListMultipartUploadsResult>"
    )


def uploading(key: str, upload_id: str) -> str:
    return (
        f"<Upload><Key>{key}</Key><UploadId>{upload_id}</UploadId>"
        f"<Initiated>{LISTED}</Initiated></Upload>"
    )


@every_listing
@pytest.mark.parametrize("namespace", ["", ' xmlns="http://www.qcloud.com/document/product/436"'])
async def test_refused_listing_raises_the_code(
    server: ScriptedServer, cos: CosClient, read: Read, namespace: str
) -> None:
    """Code and message of COS's XML are raised, with or without a namespace."""
    xml = "<Code>AccessDenied</Code><Message>No.</Message><RequestId>r-2</RequestId>"
    server.respond(http(f"<Error{namespace}>{xml}</Error>", status="403 Forbidden"))
    with pytest.raises(CloudRefusal, match=r"AccessDenied: No\.") as caught:
        await read(cos)
    assert caught.value.code == "AccessDenied"
    assert caught.value.http_status == 403


@every_listing
@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", ""),
        ("200 OK", "<html><body>log in</body></html>"),
        ("200 OK", "<html><br></html>"),
        ("200 OK", "<ListBucketResult><Contents>"),
        ("200 OK", "<ListMultipartUploadsResult><Upload/></ListMultipartUploadsResult>"),
        ("200 OK", "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>"),
        ("200 OK", '<!DOCTYPE x [<!ENTITY a "b">]><ListBucketResult>&a;</ListBucketResult>'),
        ("200 OK", '<?xml version="1.0" encoding="nonsense"?><ListBucketResult/>'),
        ("200 OK", "<Error><Code>InternalError</Code></Error>"),
        ("503 Busy", "<html>busy</html>"),
        ("500 Oops", "<Error><Message>no code</Message></Error>"),
    ],
)
async def test_unreadable_answer_is_not_an_empty_listing(
    server: ScriptedServer, cos: CosClient, read: Read, status: str, body: str
) -> None:
    """An answer that cannot be read is refused under its status."""
    server.respond(http(body, status=status))
    with pytest.raises(CloudRefusal) as caught:
        await read(cos)
    assert caught.value.code == f"Http{status[:3]}"


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16", "UTF-16LE", "ISO-8859-1"])
async def test_a_document_type_is_refused_in_each_encoding(
    server: ScriptedServer, cos: CosClient, encoding: str
) -> None:
    """Its entities could expand without limit; without them the same answer is read."""
    declared = f'<?xml version="1.0" encoding="{encoding}"?>'
    listing = f"<ListBucketResult>{listed('a')}</ListBucketResult>"
    with_entity = listing.replace("<Size>7", "<Size>&seven;")
    document_type = '<!DOCTYPE x [<!ENTITY seven "7">]>'
    server.respond(http(f"{declared}{listing}".encode(encoding)))
    server.respond(http(f"{declared}{document_type}{with_entity}".encode(encoding)))
    (found,) = await cos.list_objects("ap-tokyo", BUCKET, "")
    assert found.size == 7
    with pytest.raises(CloudRefusal) as caught:
        await cos.list_objects("ap-tokyo", BUCKET, "")
    assert caught.value.code == "Http200"


async def test_comments_and_cdata_are_read(server: ScriptedServer, cos: CosClient) -> None:
    """They are valid XML, and no document type."""
    server.respond(objects("<!-- first -->", listed("<![CDATA[a]]>")))
    (found,) = await cos.list_objects("ap-tokyo", BUCKET, "")
    assert found.key == "a"


@pytest.mark.parametrize("size", ["", "big", "-7", "٣", "9" * 19])
async def test_invalid_size_is_refused(server: ScriptedServer, cos: CosClient, size: str) -> None:
    """An entry that cannot be read makes the listing fail; it is not left out."""
    server.respond(objects(listed("a").replace("<Size>7", f"<Size>{size}")))
    with pytest.raises(CloudRefusal) as caught:
        await list_objects(cos)
    assert caught.value.code == "Http200"


@pytest.mark.parametrize(
    "time", ["", "today", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00+14:00"]
)
async def test_invalid_time_counts_as_absent(
    server: ScriptedServer, cos: CosClient, time: str
) -> None:
    """A time of a year far off, too: it could not be converted to UTC and stored."""
    server.respond(objects(listed("a").replace(LISTED, time)))
    (found,) = await cos.list_objects("ap-tokyo", BUCKET, "")
    assert found.last_modified is None


async def test_objects_are_listed_page_by_page(server: ScriptedServer, cos: CosClient) -> None:
    """Each page is read, its keys are decoded, and its marker starts the next page."""
    server.respond(
        objects(listed("night-%E6%98%A0+1%2B"), truncated="true", marker="night-%E6%98%A0+1%2B"),
        objects(listed("night-2", "<StorageClass>ARCHIVE</StorageClass>")),
    )
    assert await cos.list_objects("ap-tokyo", BUCKET, "night- +%/映") == (
        ObjectFacts("night-映+1+", 7, "abc-3", NOON),
        ObjectFacts("night-2", 7, "abc-3", NOON, storage_class="ARCHIVE"),
    )
    first, second = (request.query for request in server.requests)
    assert first == {
        "prefix": "night- +%/映",
        "encoding-type": "url",
        "max-keys": "1000",
        "marker": "",
    }
    assert second == {**first, "marker": "night-映+1+"}


async def test_uploads_are_listed_page_by_page(server: ScriptedServer, cos: CosClient) -> None:
    """Every page is read, and the next one starts at both of its markers."""
    server.respond(
        uploads(uploading("night-%20a", "u-1"), truncated="true", key="night-%20a", upload="u-1"),
        uploads(uploading("night-%20a", "u-2")),
    )
    assert await list_uploads(cos) == (
        UploadFacts("night- a", NOON),
        UploadFacts("night- a", NOON),
    )
    first, second = (request.query for request in server.requests)
    assert first["uploads"] == ""
    assert (first["max-uploads"], first["prefix"]) == ("1000", "night-")
    assert (second["key-marker"], second["upload-id-marker"]) == ("night- a", "u-1")


@pytest.mark.parametrize("answer", [objects(), uploads()])
async def test_empty_listing_is_empty(
    server: ScriptedServer, cos: CosClient, answer: bytes
) -> None:
    """A listing without entries means that nothing is there."""
    read = list_uploads if b"Uploads" in answer else list_objects
    server.respond(answer)
    assert await read(cos) == ()


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (list_objects, objects(listed("a"), "<Name>other-1250000000</Name>")),
        (list_objects, objects(listed("a"), "<Prefix>other-</Prefix>")),
        (list_uploads, uploads(uploading("a", "u-1"), "<Bucket>other-1250000000</Bucket>")),
        (list_uploads, uploads(uploading("a", "u-1"), "<Prefix>other-</Prefix>")),
    ],
)
async def test_listing_of_another_bucket_or_prefix_is_refused(
    server: ScriptedServer, cos: CosClient, read: Read, answer: bytes
) -> None:
    """A listing that repeats another question is the answer to another request."""
    server.respond(answer)
    with pytest.raises(CloudRefusal, match="another bucket or prefix"):
        await read(cos)


async def test_repeated_page_is_refused(server: ScriptedServer, cos: CosClient) -> None:
    """A truncated page without a new marker is an error, not an endless loop."""
    server.respond(objects(listed("a"), truncated="true", marker=""))
    with pytest.raises(CloudRefusal, match="whose next page is the same page"):
        await list_objects(cos)


async def test_namespaces_are_ignored(server: ScriptedServer, cos: CosClient) -> None:
    """A listing in an XML namespace is read like one without."""
    plain = objects(listed("night-1")).partition(b"\r\n\r\n")[2].decode()
    server.respond(http(plain.replace("<ListBucketResult>", '<ListBucketResult xmlns="urn:x">')))
    assert await list_objects(cos) == (ObjectFacts("night-1", 7, "abc-3", NOON),)


@pytest.mark.parametrize(("written", "read"), [("", None), ("soon", None), (LISTED[:-1], NOON)])
async def test_invalid_time_does_not_fail_the_listing(
    server: ScriptedServer, cos: CosClient, written: str, read: datetime | None
) -> None:
    """A missing or invalid time is none, and a time without a zone is in UTC."""
    server.respond(objects(listed("a").replace(LISTED, written)))
    assert await list_objects(cos) == (ObjectFacts("a", 7, "abc-3", read),)


async def test_an_upload_needs_no_id(server: ScriptedServer, cos: CosClient) -> None:
    """An upload without an id is listed, because only its key and time are used."""
    server.respond(uploads(uploading("night-a", "").replace("<UploadId></UploadId>", "")))
    assert await list_uploads(cos) == (UploadFacts("night-a", NOON),)
