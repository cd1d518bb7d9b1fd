"""Looks into a bucket: what is asked, how it is signed, and how every kind of answer is read."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
from qcloud_cos import CosConfig
from qcloud_cos.cos_auth import CosS3Auth

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.signing import ServerClock, sign_cos
from orchestrator.errors import CloudRefusal
from orchestrator.model import ObjectFacts, UploadFacts

from .scripted import (
    KEYS,
    NOON,
    TEMPORARY_KEYS,
    Answer,
    HeldClock,
    HeldKeys,
    Recorded,
    ScriptedServer,
    http,
    http_date,
)

pytestmark = pytest.mark.anyio

BUCKET = "backup-1250000000"
HOST = f"{BUCKET}.cos.ap-tokyo.myqcloud.com"
LISTED = "2026-03-01T12:00:00.000Z"
HEAD = {
    "Content-Length": "53687091200",
    "ETag": '"abc-3"',
    "Last-Modified": http_date(NOON),
    "x-cos-hash-crc64ecma": "18446744073709551615",
}
KEYS_OF_OBJECTS = [
    "img-aaaaaaaa_system_snap-1.raw",
    "folder/with spaces + plus & and?.raw",
    "nächtlich/映像/🗻.vhd",
    "100%/%41%2F.raw",
    "tilde~quote'(1)*!.raw",
    "line\nbreak.raw",
    "./a/../b/..",
]
Look = Callable[[CosClient], Awaitable[object]]


@pytest.fixture
def clock() -> ServerClock:
    return ServerClock(HeldClock())


@pytest.fixture
def keys() -> HeldKeys:
    return HeldKeys()


@pytest.fixture
def cos(
    server: ScriptedServer, client: httpx.AsyncClient, clock: ServerClock, keys: HeldKeys
) -> CosClient:
    return CosClient(client, endpoint=server.url, credentials=keys, clock=clock, timeout=5.0)


def head_bucket(cos: CosClient) -> Awaitable[object]:
    return cos.head_bucket("ap-tokyo", BUCKET)


def head_object(cos: CosClient) -> Awaitable[object]:
    return cos.head_object("ap-tokyo", BUCKET, "key")


def list_objects(cos: CosClient) -> Awaitable[object]:
    return cos.list_objects("ap-tokyo", BUCKET, "night-")


def list_uploads(cos: CosClient) -> Awaitable[object]:
    return cos.list_uploads("ap-tokyo", BUCKET, "night-")


every_look = pytest.mark.parametrize("look", [head_bucket, head_object, list_objects, list_uploads])
every_listing = pytest.mark.parametrize("look", [list_objects, list_uploads])


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


def vendors_authorization(request: Recorded) -> str:
    """What the vendor's client sends for the same request at the same second."""
    config = CosConfig(
        Region="ap-tokyo", SecretId=TEMPORARY_KEYS.secret_id, SecretKey=TEMPORARY_KEYS.secret_key
    )
    theirs = SimpleNamespace(method=request.method, url="", headers=dict(request.headers))
    CosS3Auth(config, request.path, request.query, expire=600)(theirs)
    return str(theirs.headers["Authorization"])


@every_look
async def test_the_host_is_the_buckets_own_and_is_signed(
    server: ScriptedServer, cos: CosClient, look: Look
):
    """Wherever the client connects to, the bucket's real name is the Host, under the signature."""
    server.will(http(status="403 Forbidden"))
    with pytest.raises(CloudRefusal):
        await look(cos)
    (request,) = server.requests
    assert request.headers["host"] == HOST
    assert "q-header-list=host&" in request.headers["authorization"]


@every_look
async def test_requests_are_signed_as_the_vendors_client_signs_them(
    server: ScriptedServer, cos: CosClient, clock: ServerClock, keys: HeldKeys, look: Look
):
    """The Authorization as sent is the vendor's own for this method, path, query and token."""
    keys.credential = TEMPORARY_KEYS
    server.will(http(status="403 Forbidden"))
    with pytest.raises(CloudRefusal):
        await look(cos)
    (request,) = server.requests
    expected = vendors_authorization(request)
    began = int(expected.partition("q-sign-time=")[2].partition(";")[0])
    assert expected == sign_cos(
        TEMPORARY_KEYS,
        method=request.method,
        path=request.path,
        params=request.query,
        headers=request.headers,
        now=datetime.fromtimestamp(began + 60, UTC),
    )
    assert request.headers["authorization"] == sign_cos(
        TEMPORARY_KEYS,
        method=request.method,
        path=request.path,
        params=request.query,
        headers=request.headers,
        now=NOON,
    )


async def test_looks_are_signed_by_the_servers_clock(
    server: ScriptedServer, cos: CosClient, clock: ServerClock
):
    """What one answer's Date header taught dates the next signature."""
    ahead = timedelta(minutes=9)
    server.will(http(headers={"Date": http_date(NOON, ahead)}), http())
    await cos.head_bucket("ap-tokyo", BUCKET)
    await cos.head_bucket("ap-tokyo", BUCKET)
    began = int((NOON + ahead).timestamp()) - 60
    assert f"q-sign-time={began};" in server.requests[1].headers["authorization"]


@pytest.mark.parametrize("key", KEYS_OF_OBJECTS)
async def test_any_key_is_asked_for_by_its_name(server: ScriptedServer, cos: CosClient, key: str):
    """Blanks, percent signs and other scripts reach the server as they are, and signed so."""
    server.will(http(headers=HEAD))
    found = await cos.head_object("ap-tokyo", BUCKET, key)
    assert found is not None
    assert found.key == key
    (request,) = server.requests
    assert request.path == f"/{key}"
    expected = sign_cos(
        KEYS, method="HEAD", path=f"/{key}", params={}, headers={"host": HOST}, now=NOON
    )
    assert request.headers["authorization"] == expected


async def test_an_object_is_told_by_its_headers(server: ScriptedServer, cos: CosClient):
    """Size, ETag, CRC64, time and class of an object stand in the answer to a HEAD."""
    server.will(http(headers={**HEAD, "x-cos-storage-class": "ARCHIVE"}), http(headers=HEAD))
    found = await cos.head_object("ap-tokyo", BUCKET, "key")
    assert found == ObjectFacts(
        "key", 53687091200, "abc-3", NOON, "18446744073709551615", "ARCHIVE"
    )
    plain = await cos.head_object("ap-tokyo", BUCKET, "key")
    assert plain is not None
    assert plain.storage_class == "STANDARD"


async def test_a_missing_object_is_none(server: ScriptedServer, cos: CosClient):
    """404 on an object is an answer, not an error."""
    server.will(http(status="404 Not Found"))
    assert await cos.head_object("ap-tokyo", BUCKET, "key") is None


@pytest.mark.parametrize("missing", ["ETag", "Content-Length"])
async def test_a_page_in_coss_place_is_no_object(
    server: ScriptedServer, cos: CosClient, missing: str
):
    """A 200 without what every object has proves nothing."""
    headers = {name: value for name, value in HEAD.items() if name != missing}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    server.will(Answer(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode(), "close"))
    with pytest.raises(CloudRefusal, match="without ETag or Content-Length") as caught:
        await head_object(cos)
    assert caught.value.code == "Http200"


async def test_an_open_bucket_is_no_news(server: ScriptedServer, cos: CosClient):
    """A bucket that is there and open raises nothing."""
    server.will(http())
    await head_bucket(cos)
    assert (server.requests[0].method, server.requests[0].target) == ("HEAD", "/")


@pytest.mark.parametrize("status", [301, 400, 403, 404, 429, 500, 503])
async def test_a_refused_head_is_known_by_its_status(
    server: ScriptedServer, cos: CosClient, status: int
):
    """A HEAD has no body: the status stands for the code, the RequestId comes from its header."""
    server.will(http(status=f"{status} X", headers={"x-cos-request-id": "r-1"}))
    with pytest.raises(CloudRefusal) as caught:
        await head_bucket(cos)
    assert (caught.value.code, caught.value.http_status) == (f"Http{status}", status)
    assert caught.value.request_id == "r-1"


@every_listing
@pytest.mark.parametrize("namespace", ["", ' xmlns="http://www.qcloud.com/document/product/436"'])
async def test_a_refused_listing_names_the_code(
    server: ScriptedServer, cos: CosClient, look: Look, namespace: str
):
    """Code, message and RequestId of COS's XML are raised, with or without a namespace."""
    xml = "<Code>AccessDenied</Code><Message>No.</Message><RequestId>r-2</RequestId>"
    server.will(http(f"<Error{namespace}>{xml}</Error>", status="403 Forbidden"))
    with pytest.raises(CloudRefusal, match=r"AccessDenied: No\.") as caught:
        await look(cos)
    assert caught.value.code == "AccessDenied"
    assert (caught.value.http_status, caught.value.request_id) == (403, "r-2")


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
async def test_what_is_no_listing_is_never_an_empty_one(
    server: ScriptedServer, cos: CosClient, look: Look, status: str, body: str
):
    """An answer that cannot be read is refused under its status: it is not a clean look."""
    server.will(http(body, status=status))
    with pytest.raises(CloudRefusal) as caught:
        await look(cos)
    assert caught.value.code == f"Http{status[:3]}"


async def test_a_size_that_is_no_number_is_refused(server: ScriptedServer, cos: CosClient):
    """An entry that cannot be read spoils the listing instead of vanishing from it."""
    server.will(objects(listed("a").replace("<Size>7", "<Size>big")))
    with pytest.raises(CloudRefusal) as caught:
        await list_objects(cos)
    assert caught.value.code == "Http200"


async def test_objects_are_listed_page_by_page(server: ScriptedServer, cos: CosClient):
    """Every page is fetched, its keys are decoded, and the next begins at its marker."""
    server.will(
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


async def test_uploads_are_listed_page_by_page(server: ScriptedServer, cos: CosClient):
    """Every page is fetched, and the next begins at both of its markers."""
    server.will(
        uploads(uploading("night-%20a", "u-1"), truncated="true", key="night-%20a", upload="u-1"),
        uploads(uploading("night-%20a", "u-2")),
    )
    assert await list_uploads(cos) == (
        UploadFacts("night- a", "u-1", NOON),
        UploadFacts("night- a", "u-2", NOON),
    )
    first, second = (request.query for request in server.requests)
    assert first["uploads"] == ""
    assert (first["max-uploads"], first["prefix"]) == ("1000", "night-")
    assert (second["key-marker"], second["upload-id-marker"]) == ("night- a", "u-1")


@pytest.mark.parametrize("answer", [objects(), uploads()])
async def test_an_empty_listing_is_empty(server: ScriptedServer, cos: CosClient, answer: bytes):
    """No entries is an answer: nothing is there."""
    look = list_uploads if b"Uploads" in answer else list_objects
    server.will(answer)
    assert await look(cos) == ()


async def test_a_listing_that_does_not_go_on_is_refused(server: ScriptedServer, cos: CosClient):
    """A page that claims to be cut but names no new marker ends the look, not in a circle."""
    server.will(objects(listed("a"), truncated="true", marker=""))
    with pytest.raises(CloudRefusal, match="does not go on"):
        await list_objects(cos)


async def test_namespaces_are_tolerated(server: ScriptedServer, cos: CosClient):
    """A listing in a namespace is read like one without."""
    plain = objects(listed("night-1")).partition(b"\r\n\r\n")[2].decode()
    server.will(http(plain.replace("<ListBucketResult>", '<ListBucketResult xmlns="urn:x">')))
    assert await list_objects(cos) == (ObjectFacts("night-1", 7, "abc-3", NOON),)


@pytest.mark.parametrize(("written", "read"), [("", None), ("soon", None), (LISTED[:-1], NOON)])
async def test_a_time_that_is_unclear_is_no_reason_to_fail(
    server: ScriptedServer, cos: CosClient, written: str, read: datetime | None
):
    """A missing time is none, and one without a zone is in UTC."""
    server.will(objects(listed("a").replace(LISTED, written)))
    assert await list_objects(cos) == (ObjectFacts("a", 7, "abc-3", read),)


async def test_the_endpoint_names_bucket_and_region(
    server: ScriptedServer, client: httpx.AsyncClient, clock: ServerClock
):
    """Bucket and region are filled in wherever the endpoint has a place for them."""
    endpoint = f"{server.url}/{{region}}/{{bucket}}/"
    cos = CosClient(client, endpoint=endpoint, credentials=HeldKeys(), clock=clock, timeout=5.0)
    server.will(http())
    await head_bucket(cos)
    assert server.requests[0].target == f"/ap-tokyo/{BUCKET}/"


@every_look
async def test_a_look_that_breaks_is_one_request(
    server: ScriptedServer, cos: CosClient, look: Look
):
    """Where the connection breaks, httpx's exception surfaces after exactly one request."""
    server.will(Answer(then="reset"))
    with pytest.raises(httpx.ReadError):
        await look(cos)
    assert len(server.requests) == 1
