"""ExportImages: what is sent, and how every kind of answer is read."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.http_client import HttpClient, open_http_client
from orchestrator.cloud.tc3_signing import tc3_headers
from orchestrator.model import ExportOrder, ImageFormat, Reply
from tests.cloud.scripted_server import (
    CREDENTIAL,
    NOON,
    TEMPORARY,
    Answer,
    ScriptedServer,
    api,
    http,
    http_date,
)

pytestmark = pytest.mark.anyio

ORDER = ExportOrder(
    region="ap-singapore",
    image_ids=("img-aaaaaaaa", "img-bbbbbbbb"),
    bucket="backup-1250000000",
    format=ImageFormat.RAW,
    name_prefix="nächtlich-",
    only_root_disk=True,
    role_name="Exporter",
)
ACCEPTED = {"TaskId": 105591590, "CosPaths": ["/a.raw", "/b.raw"], "RequestId": "r-1"}


async def export(
    cvm: CvmClient, order: ExportOrder = ORDER, credential: Credential = CREDENTIAL
) -> Reply:
    return await cvm.export_images(order, signed_at=NOON, credential=credential)


async def test_order_is_sent_as_compact_utf8_json(server: ScriptedServer, cvm: CvmClient) -> None:
    """The JSON body has each field and one prefix for each image, without spaces."""
    server.respond(api(ACCEPTED))
    await export(cvm)
    assert (
        server.requests[0].body
        == (
            '{"BucketName":"backup-1250000000","ImageIds":["img-aaaaaaaa","img-bbbbbbbb"],'
            '"ExportFormat":"RAW","FileNamePrefixList":["nächtlich-","nächtlich-"],'
            '"OnlyExportRootDisk":true,"RoleName":"Exporter"}'
        ).encode()
    )


async def test_empty_fields_are_not_sent(server: ScriptedServer, cvm: CvmClient) -> None:
    """Without prefix, role and root-disk flag the vendor's defaults apply."""
    server.respond(api(ACCEPTED))
    await export(cvm, replace(ORDER, name_prefix="", only_root_disk=False, role_name=None))
    body = json.loads(server.requests[0].body)
    assert body.keys() == {"BucketName", "ImageIds", "ExportFormat"}


async def test_request_is_a_post_with_the_apis_headers(
    server: ScriptedServer, cvm: CvmClient
) -> None:
    """Action, version, region and language are headers of the POST request.

    Host and content type are sent as they are signed.
    """
    server.respond(api(ACCEPTED))
    await export(cvm)
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/")
    expected = {
        "host": f"127.0.0.1:{server.port}",
        "content-type": "application/json",
        "x-tc-action": "ExportImages",
        "x-tc-version": "2017-03-12",
        "x-tc-region": "ap-singapore",
        "x-tc-language": "en-US",
    }
    assert expected.items() <= request.headers.items()


async def test_signature_is_dated_by_the_claim(
    server: ScriptedServer, cvm: CvmClient, clock: ServerClock
) -> None:
    """The signature has the claim's time and the given credential.

    It does not depend on the clock.
    """
    clock.offset = timedelta(hours=3)
    server.respond(api(ACCEPTED))
    await export(cvm, credential=TEMPORARY)
    (request,) = server.requests
    signed = tc3_headers(
        TEMPORARY, service="cvm", host=request.headers["host"], body=request.body, timestamp=NOON
    )
    assert signed["X-TC-Timestamp"] == str(int(NOON.timestamp()))
    assert signed["X-TC-Token"] == TEMPORARY.token
    assert {name.lower(): value for name, value in signed.items()}.items() <= (
        request.headers.items()
    )


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "text/plain", "text/html", ""],
)
async def test_content_type_of_an_answer_is_ignored(
    server: ScriptedServer, cvm: CvmClient, content_type: str
) -> None:
    """The body alone decides between success and error."""
    headers = {"Content-Type": content_type}
    error = {"Error": {"Code": "InternalError", "Message": "Oops."}, "RequestId": "r-2"}
    server.respond(api(ACCEPTED, headers=headers), api(error, headers=headers))
    accepted, refused = await export(cvm), await export(cvm)
    assert accepted == Reply(200, "r-1", 105591590, ("/a.raw", "/b.raw"))
    assert refused == Reply(200, "r-2", error_code="InternalError", error_message="Oops.")


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Oops", "302 Found"])
async def test_status_of_an_error_is_ignored(
    server: ScriptedServer, cvm: CvmClient, status: str
) -> None:
    """The code comes from the body, even with a status that the vendor never sends."""
    server.respond(api({"Error": {"Code": "AuthFailure.X", "Message": "m"}}, status=status))
    reply = await export(cvm)
    assert (reply.error_code, reply.error_message) == ("AuthFailure.X", "m")
    assert (reply.http_status, reply.excerpt) == (int(status[:3]), None)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", "<html><body>Please log in</body></html>"),
        ("200 OK", ""),
        ("200 OK", "[]"),
        ("200 OK", '{"Response": []}'),
        ("200 OK", '{"TaskId": 1, "CosPaths": ["/a.raw"]}'),
        ("200 OK", '{"Response": {"Error": "InternalError"}}'),
        ("200 OK", '{"Response": {"Error": {"Message": "no code"}}}'),
        ("200 OK", "[" * 100_000),
        ("200 OK", "9" * 5_000),
        ("502 Bad Gateway", "<html>Bad Gateway</html>"),
        ("201 Created", json.dumps({"Response": ACCEPTED})),
    ],
)
async def test_other_answer_is_stored_as_an_excerpt(
    server: ScriptedServer, cvm: CvmClient, status: str, body: str
) -> None:
    """The status and the first 200 characters of any other answer are stored."""
    server.respond(http(body, status=status))
    reply = await export(cvm)
    assert (reply.http_status, reply.excerpt) == (int(status[:3]), body[:200])
    assert (reply.task_id, reply.cos_paths, reply.error_code) == (None, (), None)


async def test_excerpt_of_invalid_utf8_is_valid_text(
    server: ScriptedServer, cvm: CvmClient
) -> None:
    """The excerpt has 200 characters, one replacement character per invalid byte."""
    server.respond(http(b"\xff" * 999))
    assert (await export(cvm)).excerpt == "\ufffd" * 200


async def test_excerpt_has_no_nul(server: ScriptedServer, cvm: CvmClient) -> None:
    """PostgreSQL cannot store a NUL, so a question mark is stored in its place."""
    server.respond(http(b"\0not\0JSON"))
    assert (await export(cvm)).excerpt == "?not?JSON"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (105591590, 105591590),
        (2**64 - 1, 2**64 - 1),
        ("105591590", 105591590),
        (2**64, None),
        (-1, None),
        (True, None),
        (1.0, None),
        ("1e3", None),
        ("٣", None),
        ("9" * 5000, None),
        (None, None),
        ([1], None),
    ],
)
async def test_task_id_is_an_unsigned_64_bit_number(
    server: ScriptedServer, cvm: CvmClient, written: object, read: int | None
) -> None:
    """Only an unsigned 64-bit number, or its decimal digits, is a TaskId."""
    server.respond(api({**ACCEPTED, "TaskId": written}))
    assert (await export(cvm)).task_id == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["/a.raw"], ("/a.raw",)),
        ([], ()),
        (None, ()),
        ("/a.raw", ()),
        (["/a.raw", None], ()),
        (["/a.raw", ""], ()),
        ({"a": 1}, ()),
    ],
)
async def test_invalid_cos_paths_count_as_none(
    server: ScriptedServer, cvm: CvmClient, written: object, read: tuple[str, ...]
) -> None:
    """CosPaths other than a list of non-empty strings count as no paths.

    The TaskId is kept.
    """
    server.respond(api({**ACCEPTED, "CosPaths": written}))
    reply = await export(cvm)
    assert (reply.cos_paths, reply.task_id) == (read, 105591590)


async def test_answer_sets_the_clock(
    server: ScriptedServer, cvm: CvmClient, clock: ServerClock
) -> None:
    """A Date header far before this machine's time becomes the server's time."""
    behind = timedelta(minutes=-7)
    server.respond(api(ACCEPTED, headers={"Date": http_date(NOON, behind)}))
    await export(cvm)
    assert clock.now() == NOON + behind


@pytest.mark.parametrize(
    ("body", "is_known"),
    [
        ("<html>blocked", False),
        ("", False),
        ('{"message": "blocked"}', False),
        ('{"Response": {}}', False),
        ('{"Response": "blocked"}', False),
        ('{"Response": {"TaskId": 7}}', True),
        ('{"Response": {"Error": {"Code": "InternalError"}}}', True),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden"])
async def test_only_an_answer_of_the_api_sets_the_clock(
    server: ScriptedServer,
    cvm: CvmClient,
    clock: ServerClock,
    status: str,
    body: str,
    *,
    is_known: bool,
) -> None:
    """Only an answer of the API sets the clock, even one without a RequestId.

    The Date header of any other answer may be a proxy's.
    """
    date = {"Date": http_date(NOON)}
    server.respond(http(body, status=status, headers=date))
    await export(cvm)
    assert clock.is_known == (is_known and (status == "200 OK" or "Error" in body))


async def test_page_names_the_proxy_that_it_came_through(
    server: ScriptedServer, clock: ServerClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway that blocks a host is often the proxy itself."""
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{server.port}")
    server.respond(http("<html>blocked", status="403 Forbidden"))
    async with open_http_client("tests/1") as client:
        cvm = CvmClient(client, endpoint="http://cvm.example", clock=clock, timeout=60.0)
        reply = await export(cvm)
    through = f"through the proxy 127.0.0.1:{server.port} (HTTP_PROXY)"
    assert reply.excerpt == f"{through}: <html>blocked"


async def test_refused_signature_sets_the_clock(
    server: ScriptedServer, cvm: CvmClient, clock: ServerClock
) -> None:
    """A later Date header is believed once this machine's time was refused."""
    ahead = timedelta(minutes=7)
    error = {"Code": "AuthFailure.SignatureExpire", "Message": "expired"}
    expired = api({"Error": error, "RequestId": "r"}, headers={"Date": http_date(NOON, ahead)})
    server.respond(expired)
    await export(cvm)
    assert clock.now() == NOON + ahead
    assert clock.host == cvm.host("ap-singapore")


async def test_target_of_a_redirect_is_kept(server: ScriptedServer, cvm: CvmClient) -> None:
    """The reply names the target of a redirect without the secrets in its address.

    A person needs to know where the redirect leads.
    """
    target = "https://user:p4ssw0rd@login.example/sso?token=p4ssw0rd#p4ssw0rd"
    server.respond(http(status="302 Found", headers={"Location": target}))
    reply = await export(cvm)
    assert (reply.http_status, reply.excerpt) == (302, "redirect to https://login.example/sso")


@pytest.mark.parametrize(
    ("answer", "error", "seconds"),
    [
        (Answer(then="reset"), httpx.ReadError, 60.0),
        (Answer(then="hang"), httpx.ReadTimeout, 1.0),
    ],
)
async def test_order_without_an_answer_is_sent_once(
    server: ScriptedServer,
    client: HttpClient,
    clock: ServerClock,
    answer: Answer,
    error: type[Exception],
    seconds: float,
) -> None:
    """A reset and a time-out raise httpx's exceptions after exactly one request."""
    cvm = CvmClient(
        client,
        endpoint=server.url,
        clock=clock,
        timeout=seconds,
    )
    server.respond(answer)
    with pytest.raises(error):
        await export(cvm)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("https://cvm.intl.tencentcloudapi.com", "cvm.intl.tencentcloudapi.com"),
        ("https://cvm.{region}.tencentcloudapi.com/", "cvm.ap-tokyo.tencentcloudapi.com"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
    ],
)
async def test_host_is_the_endpoints_with_the_region(
    client: HttpClient, clock: ServerClock, endpoint: str, host: str
) -> None:
    """The host in a rate key is the endpoint's, with the region filled in."""
    cvm = CvmClient(client, endpoint=endpoint, clock=clock, timeout=5.0)
    assert cvm.host("ap-tokyo") == host


async def test_no_secret_is_shown(server: ScriptedServer, cvm: CvmClient) -> None:
    """Neither the client nor an exception shows the secret that signed the request."""
    server.respond(Answer(then="close"))
    with pytest.raises(httpx.RemoteProtocolError) as caught:
        await export(cvm, credential=TEMPORARY)
    shown: Any = [repr(cvm), repr(caught.value), str(caught.value), repr(caught.value.request)]
    assert TEMPORARY.secret_key not in "".join(shown)
    assert str(TEMPORARY.token) not in "".join(shown)


async def test_texts_that_a_database_rejects_are_replaced(
    server: ScriptedServer, cvm: CvmClient
) -> None:
    """Lone surrogates and NUL in an answer are replaced by question marks.

    JSON can escape them, but UTF-8 accepts no lone surrogates, and PostgreSQL accepts neither.
    """
    server.respond(api({"Error": {"Code": "Odd\ud800", "Message": "a\x00b"}, "RequestId": "r"}))
    reply = await export(cvm)
    assert (reply.error_code, reply.error_message) == ("Odd?", "a?b")


async def test_answer_to_an_earlier_request_is_rejected(
    server: ScriptedServer, cvm: CvmClient, clock: ServerClock
) -> None:
    """An answer with a RequestId that was seen before is rejected.

    It belongs to another request, so its date is not used.
    """
    request_id = "0a1b2c3d-0000-4000-8000-0123456789ab"
    late = {"Date": http_date(NOON, timedelta(hours=1))}
    server.respond(
        api({**ACCEPTED, "RequestId": request_id}),
        api({**ACCEPTED, "RequestId": request_id}, headers=late),
    )
    await export(cvm)
    with pytest.raises(httpx.RemoteProtocolError, match=request_id):
        await export(cvm)
    assert clock.now() == NOON
