"""Reads of a bucket: how they are sent and signed, and what a HEAD returns."""

from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace

import httpx
import pytest
from qcloud_cos import CosConfig
from qcloud_cos.cos_auth import CosS3Auth

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cos_signing import cos_headers
from orchestrator.cloud.error_codes import OTHER_REGION
from orchestrator.cloud.http_client import HttpClient
from orchestrator.errors import CloudRefusal
from orchestrator.model import ObjectFacts
from tests.cloud.scripted_server import (
    CREDENTIAL,
    NOON,
    TEMPORARY,
    Answer,
    FixedCredentials,
    Recorded,
    ScriptedServer,
    http,
    http_date,
)

from .bucket_reads import BUCKET, Read, every_read, head_object

pytestmark = pytest.mark.anyio

HOST = f"{BUCKET}.cos.ap-tokyo.myqcloud.com"
HEAD = {
    "Content-Length": "53687091200",
    "ETag": '"abc-3"',
    "Last-Modified": http_date(NOON),
    "x-cos-hash-crc64ecma": "18446744073709551615",
}
OBJECT_KEYS = [
    "img-aaaaaaaa_system_snap-1.raw",
    "folder/with spaces + plus & and?.raw",
    "nächtlich/映像/🗻.vhd",
    "100%/%41%2F.raw",
    "tilde~quote'(1)*!.raw",
    "line\nbreak.raw",
    "./a/../b/..",
]


def vendors_authorization(request: Recorded) -> str:
    """Return what the vendor's client sends for the same request now."""
    config = CosConfig(
        Region="ap-tokyo", SecretId=TEMPORARY.secret_id, SecretKey=TEMPORARY.secret_key
    )
    theirs = SimpleNamespace(method=request.method, url="", headers=dict(request.headers))
    CosS3Auth(config, request.path, request.query, expire=600)(theirs)
    return str(theirs.headers["Authorization"])


@every_read
async def test_host_header_is_the_buckets_and_is_signed(
    server: ScriptedServer, cos: CosClient, read: Read
) -> None:
    """For any endpoint, the Host header is the bucket's real name and is signed."""
    server.respond(http(status="403 Forbidden"))
    with pytest.raises(CloudRefusal):
        await read(cos)
    (request,) = server.requests
    assert request.headers["host"] == HOST
    assert "q-header-list=host&" in request.headers["authorization"]


@every_read
async def test_requests_are_signed_like_the_vendors_client(
    server: ScriptedServer,
    cos: CosClient,
    clock: ServerClock,
    credentials: FixedCredentials,
    read: Read,
) -> None:
    """Each read has the Authorization header that the vendor's client computes.

    The header depends on method, path, query and token.
    """
    credentials.credential = TEMPORARY
    server.respond(http(status="403 Forbidden"))
    with pytest.raises(CloudRefusal):
        await read(cos)
    (request,) = server.requests
    expected = vendors_authorization(request)
    began = int(expected.partition("q-sign-time=")[2].partition(";")[0])
    ours = partial(
        cos_headers,
        TEMPORARY,
        method=request.method,
        host=HOST,
        path=request.path,
        params=request.query,
    )
    assert expected == ours(now=datetime.fromtimestamp(began + 60, UTC))["Authorization"]
    assert request.headers["authorization"] == ours(now=NOON)["Authorization"]


async def test_reads_are_dated_by_the_servers_clock(server: ScriptedServer, cos: CosClient) -> None:
    """The Date header of one answer corrects the date of the next signature."""
    behind = timedelta(minutes=-9)
    server.respond(
        http(status="404 Not Found", headers=dated(behind)), http(status="404 Not Found")
    )
    await cos.head_object("ap-tokyo", BUCKET, "key")
    await cos.head_object("ap-tokyo", BUCKET, "key")
    assert sign_times(server) == [NOON, NOON + behind]


async def test_refused_date_is_corrected_in_the_same_read(
    server: ScriptedServer, cos: CosClient
) -> None:
    """A refused read is immediately sent once more, with the other clock's time."""
    ahead = timedelta(hours=1)
    server.respond(
        http(status="403 Forbidden", headers=dated(ahead)),
        http(status="404 Not Found", headers=dated(ahead)),
    )
    assert await head_object(cos) is None
    assert sign_times(server) == [NOON, NOON + ahead]
    server.respond(*(2 * [http(status="403 Forbidden", headers=dated(ahead))]))
    with pytest.raises(CloudRefusal):
        await head_object(cos)


async def test_refusal_is_not_repeated_where_the_clocks_agree(
    server: ScriptedServer, cos: CosClient
) -> None:
    """A missing permission costs one request."""
    server.respond(http(status="403 Forbidden", headers=dated(timedelta(seconds=1))))
    with pytest.raises(CloudRefusal):
        await head_object(cos)
    assert len(server.requests) == 1


def dated(difference: timedelta) -> dict[str, str]:
    """Return the headers of an answer of COS whose clock differs from this machine's."""
    return {"Date": http_date(NOON, difference), "x-cos-request-id": "r-1"}


def sign_times(server: ScriptedServer) -> list[datetime]:
    """Return the dates of the signatures so far."""
    starts = [
        request.headers["authorization"].partition("q-sign-time=")[2].partition(";")[0]
        for request in server.requests
    ]
    return [datetime.fromtimestamp(int(start) + 60, UTC) for start in starts]


@pytest.mark.parametrize("key", OBJECT_KEYS)
async def test_any_key_reaches_the_server_unchanged(
    server: ScriptedServer, cos: CosClient, key: str
) -> None:
    """Spaces, percent signs and other scripts in a key arrive unchanged and signed."""
    server.respond(http(headers=HEAD))
    found = await cos.head_object("ap-tokyo", BUCKET, key)
    assert found is not None
    assert found.key == key
    (request,) = server.requests
    assert request.path == f"/{key}"
    expected = cos_headers(
        CREDENTIAL, method="HEAD", host=HOST, path=f"/{key}", params={}, now=NOON
    )
    assert request.headers["authorization"] == expected["Authorization"]


async def test_head_returns_the_objects_facts(server: ScriptedServer, cos: CosClient) -> None:
    """Size, ETag, CRC64, time and storage class come from the headers of a HEAD."""
    server.respond(http(headers={**HEAD, "x-cos-storage-class": "ARCHIVE"}), http(headers=HEAD))
    found = await cos.head_object("ap-tokyo", BUCKET, "key")
    assert found == ObjectFacts(
        "key", 53687091200, "abc-3", NOON, "18446744073709551615", "ARCHIVE"
    )
    plain = await cos.head_object("ap-tokyo", BUCKET, "key")
    assert plain is not None
    assert plain.storage_class == "STANDARD"


async def test_missing_object_is_none(server: ScriptedServer, cos: CosClient) -> None:
    """Status 404 of an object is an answer, not an error."""
    server.respond(http(status="404 Not Found"))
    assert await cos.head_object("ap-tokyo", BUCKET, "key") is None


@pytest.mark.parametrize("missing", ["ETag", "Content-Length"])
async def test_answer_of_a_proxy_is_not_an_object(
    server: ScriptedServer, cos: CosClient, missing: str
) -> None:
    """Status 200 without the headers that every object has proves nothing."""
    headers = {name: value for name, value in HEAD.items() if name != missing}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    server.respond(Answer(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode(), "close"))
    with pytest.raises(CloudRefusal, match="without ETag or Content-Length") as caught:
        await head_object(cos)
    assert caught.value.code == "Http200"


@pytest.mark.parametrize("status", [301, 400, 403, 429, 500, 503])
async def test_refused_head_has_its_status_as_code(
    server: ScriptedServer, cos: CosClient, status: int
) -> None:
    """A HEAD has no body: its status is the code."""
    server.respond(http(status=f"{status} X"))
    with pytest.raises(CloudRefusal) as caught:
        await head_object(cos)
    assert (caught.value.code, caught.value.http_status) == (f"Http{status}", status)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-cos-bucket-region": "ap-seoul"},
        {"Location": f"https://{BUCKET}.cos.ap-seoul.myqcloud.com/key"},
    ],
    ids=["header", "address"],
)
@every_read
async def test_redirect_names_the_region_of_the_bucket(
    server: ScriptedServer, cos: CosClient, headers: dict[str, str], read: Read
) -> None:
    """The error says where the bucket is, and is not followed."""
    server.respond(http(status="301 X", headers={"Location": "", **headers}))
    with pytest.raises(CloudRefusal, match="ap-seoul") as caught:
        await read(cos)
    assert (caught.value.code, caught.value.http_status) == (OTHER_REGION, 301)


async def test_redirect_to_another_place_is_told(server: ScriptedServer, cos: CosClient) -> None:
    """The error for a redirect to a login page names its address without secrets.

    Such a redirect does not name the bucket's region.
    """
    target = "https://user:p4ssw0rd@login.example/sso?token=p4ssw0rd"
    server.respond(http(status="302 X", headers={"Location": target}))
    with pytest.raises(CloudRefusal, match=r"a redirect to https://login\.example/sso$") as caught:
        await head_object(cos)
    assert caught.value.code == "Http302"


@pytest.mark.parametrize(("status", "code"), [(404, "NoSuchBucket"), (403, "Http403")])
async def test_missing_bucket_has_a_code(
    server: ScriptedServer, cos: CosClient, status: int, code: str
) -> None:
    """A 404 for HEAD Bucket gets the code that a listing of the bucket has.

    The answer to a HEAD has no body that could contain a code.
    """
    server.respond(http(), http(status=f"{status} X"))
    await cos.head_bucket("ap-tokyo", BUCKET)
    with pytest.raises(CloudRefusal) as caught:
        await cos.head_bucket("ap-tokyo", BUCKET)
    assert caught.value.code == code


async def test_endpoint_may_contain_bucket_and_region(
    server: ScriptedServer, client: HttpClient, clock: ServerClock
) -> None:
    """Bucket and region replace the placeholders of the endpoint."""
    endpoint = f"{server.url}/{{region}}/{{bucket}}/"
    cos = CosClient(
        client, endpoint=endpoint, credentials=FixedCredentials(), clock=clock, timeout=60.0
    )
    server.respond(http(status="404 Not Found"))
    await head_object(cos)
    assert server.requests[0].target == f"/ap-tokyo/{BUCKET}/key"


@every_read
async def test_broken_read_is_one_request(
    server: ScriptedServer, cos: CosClient, read: Read
) -> None:
    """If the connection breaks, httpx's error is raised after exactly one request."""
    server.respond(Answer(then="reset"))
    with pytest.raises(httpx.ReadError):
        await read(cos)
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", ["-1", "1e9", "٣", "9" * 19])
async def test_head_with_an_impossible_size_is_refused(
    server: ScriptedServer, cos: CosClient, size: str
) -> None:
    """A Content-Length that is not a number of at most 18 digits is not COS's."""
    raw = f'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: {size}\r\n\r\n'
    server.respond(Answer(raw.encode(), "close"))
    with pytest.raises((CloudRefusal, httpx.RemoteProtocolError)):
        await head_object(cos)
