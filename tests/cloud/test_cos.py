"""Looks into a bucket: how they are asked and signed, and what a HEAD tells."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
from qcloud_cos import CosConfig
from qcloud_cos.cos_auth import CosS3Auth

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cos_signing import sign_cos
from orchestrator.cloud.http_client import HttpClient
from orchestrator.errors import CloudRefusal
from orchestrator.model import ObjectFacts

from .looks import BUCKET, Look, every_look, head_object
from .scripted import (
    KEYS,
    NOON,
    TEMPORARY_KEYS,
    Answer,
    HeldKeys,
    Recorded,
    ScriptedServer,
    http,
    http_date,
)

pytestmark = pytest.mark.anyio

HOST = f"{BUCKET}.cos.ap-tokyo.myqcloud.com"
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
) -> None:
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
) -> None:
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
) -> None:
    """What one answer's Date header taught dates the next signature."""
    ahead = timedelta(minutes=9)
    server.will(
        http(
            status="404 Not Found",
            headers={"Date": http_date(NOON, ahead), "x-cos-request-id": "r-1"},
        ),
        http(status="404 Not Found"),
    )
    await cos.head_object("ap-tokyo", BUCKET, "key")
    await cos.head_object("ap-tokyo", BUCKET, "key")
    began = int((NOON + ahead).timestamp()) - 60
    assert f"q-sign-time={began};" in server.requests[1].headers["authorization"]


@pytest.mark.parametrize("key", KEYS_OF_OBJECTS)
async def test_any_key_is_asked_for_by_its_name(
    server: ScriptedServer, cos: CosClient, key: str
) -> None:
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


async def test_an_object_is_told_by_its_headers(server: ScriptedServer, cos: CosClient) -> None:
    """Size, ETag, CRC64, time and class of an object stand in the answer to a HEAD."""
    server.will(http(headers={**HEAD, "x-cos-storage-class": "ARCHIVE"}), http(headers=HEAD))
    found = await cos.head_object("ap-tokyo", BUCKET, "key")
    assert found == ObjectFacts(
        "key", 53687091200, "abc-3", NOON, "18446744073709551615", "ARCHIVE"
    )
    plain = await cos.head_object("ap-tokyo", BUCKET, "key")
    assert plain is not None
    assert plain.storage_class == "STANDARD"


async def test_a_missing_object_is_none(server: ScriptedServer, cos: CosClient) -> None:
    """404 on an object is an answer, not an error."""
    server.will(http(status="404 Not Found"))
    assert await cos.head_object("ap-tokyo", BUCKET, "key") is None


@pytest.mark.parametrize("missing", ["ETag", "Content-Length"])
async def test_a_page_in_coss_place_is_no_object(
    server: ScriptedServer, cos: CosClient, missing: str
) -> None:
    """A 200 without what every object has proves nothing."""
    headers = {name: value for name, value in HEAD.items() if name != missing}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    server.will(Answer(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode(), "close"))
    with pytest.raises(CloudRefusal, match="without ETag or Content-Length") as caught:
        await head_object(cos)
    assert caught.value.code == "Http200"


@pytest.mark.parametrize("status", [301, 400, 403, 429, 500, 503])
async def test_a_refused_head_is_known_by_its_status(
    server: ScriptedServer, cos: CosClient, status: int
) -> None:
    """A HEAD has no body: the status stands for the code, the RequestId comes from its header."""
    server.will(http(status=f"{status} X", headers={"x-cos-request-id": "r-1"}))
    with pytest.raises(CloudRefusal) as caught:
        await head_object(cos)
    assert (caught.value.code, caught.value.http_status) == (f"Http{status}", status)
    assert caught.value.request_id == "r-1"


async def test_the_endpoint_names_bucket_and_region(
    server: ScriptedServer, client: HttpClient, clock: ServerClock
) -> None:
    """Bucket and region are filled in wherever the endpoint has a place for them."""
    endpoint = f"{server.url}/{{region}}/{{bucket}}/"
    cos = CosClient(client, endpoint=endpoint, credentials=HeldKeys(), clock=clock, timeout=60.0)
    server.will(http(status="404 Not Found"))
    await head_object(cos)
    assert server.requests[0].target == f"/ap-tokyo/{BUCKET}/key"


@every_look
async def test_a_look_that_breaks_is_one_request(
    server: ScriptedServer, cos: CosClient, look: Look
) -> None:
    """Where the connection breaks, httpx's exception surfaces after exactly one request."""
    server.will(Answer(then="reset"))
    with pytest.raises(httpx.ReadError):
        await look(cos)
    assert len(server.requests) == 1
