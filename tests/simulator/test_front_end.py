"""CVM's front end: signature, version, allowance and the form of parameters."""

from collections import defaultdict
from typing import Any

import anyio
import httpx
import pytest

from orchestrator.simulator import Simulator
from orchestrator.simulator.limits import Limits

from .callers import BUCKET, call, code, export, post, signed

pytestmark = pytest.mark.anyio

GOOD = {"ImageIds": ["img-00000001"], "BucketName": BUCKET}


@pytest.mark.parametrize(
    "headers", ["content-type;host", "content-type;host;x-tc-action;x-tc-timestamp"]
)
async def test_any_list_of_signed_headers_is_verified(
    simulator: Simulator, http: httpx.AsyncClient, headers: str
) -> None:
    """The signature covers the headers that it names, the vendor's two among them."""
    answer = await call(http, simulator, "ExportImages", GOOD, signed_headers=headers)
    assert code(answer) is None


@pytest.mark.parametrize(
    "fault",
    [
        {"signed_headers": "content-type"},
        {"signed_headers": "content-type;host;x-tc-absent"},
        {"service": "cbs"},
        {"date": "2026-01-01"},
    ],
)
async def test_a_signature_over_too_little_or_another_scope_fails(
    simulator: Simulator, http: httpx.AsyncClient, fault: dict[str, Any]
) -> None:
    """Host must be signed, signed headers must be there, service and day must be right."""
    answer = await call(http, simulator, "ExportImages", GOOD, **fault)
    assert code(answer) == "AuthFailure.SignatureFailure"


async def test_another_body_than_the_signed_one_fails(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """One more blank in the body breaks the signature."""
    headers = signed(simulator, "DescribeRegions", b"{}")
    answer = await http.post(f"{simulator.url}/", content=b"{ }", headers=headers)
    assert code(answer.json()["Response"]) == "AuthFailure.SignatureFailure"


@pytest.mark.parametrize("authorization", ["", "Basic abc", "TC3-HMAC-SHA256 Credential=x"])
async def test_a_malformed_authorization_is_called_so(
    simulator: Simulator, http: httpx.AsyncClient, authorization: str
) -> None:
    """What is no TC3 header at all has its own code."""
    headers = signed(simulator, "DescribeRegions", b"{}") | {"Authorization": authorization}
    answer = await http.post(f"{simulator.url}/", content=b"{}", headers=headers)
    assert code(answer.json()["Response"]) == "AuthFailure.InvalidAuthorization"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("X-TC-Timestamp", "", "MissingParameter"),
        ("X-TC-Timestamp", "now", "InvalidParameterValue"),
        ("X-TC-Action", None, "MissingParameter"),
        ("X-TC-Version", None, "MissingParameter"),
    ],
)
async def test_common_parameters_must_be_there(
    simulator: Simulator, http: httpx.AsyncClient, name: str, value: str | None, expected: str
) -> None:
    """What is missing or cannot be read has its code, and the message names it."""
    headers = signed(simulator, "DescribeRegions", b"{}")
    headers = {one: headers[one] for one in headers if one != name}
    headers |= {} if value is None else {name: value}
    answer = (await http.post(f"{simulator.url}/", content=b"{}", headers=headers)).json()
    assert code(answer["Response"]) == expected
    assert f"`{name.removeprefix('X-TC-')}`" in answer["Response"]["Error"]["Message"]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"action": "ExportImage"}, "InvalidAction"),
        ({"version": "2022-06-27"}, "NoSuchVersion"),
        ({"region": None}, "MissingParameter"),
        ({"region": "ap-nowhere"}, "UnsupportedRegion"),
        ({"content_type": "text/plain"}, "UnsupportedProtocol"),
    ],
)
async def test_wrong_common_parameters_have_their_codes(
    simulator: Simulator, http: httpx.AsyncClient, named: dict[str, Any], expected: str
) -> None:
    """Action, version, region and content type are each checked."""
    answer = await call(http, simulator, named.pop("action", "ExportImages"), GOOD, **named)
    assert code(answer) == expected


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
async def test_a_charset_beside_the_content_type_is_fine(
    simulator: Simulator, http: httpx.AsyncClient, content_type: str
) -> None:
    """JSON is JSON however the header is written."""
    answer = await call(http, simulator, "ExportImages", GOOD, content_type=content_type)
    assert code(answer) is None


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_refused(
    simulator: Simulator, http: httpx.AsyncClient, body: bytes
) -> None:
    """Lists, torn JSON, bytes that are no UTF-8 and endless nesting are an InvalidParameter."""
    headers = signed(simulator, "DescribeRegions", body)
    answer = await http.post(f"{simulator.url}/", content=body, headers=headers)
    assert code(answer.json()["Response"]) == "InvalidParameter"


async def test_a_body_over_ten_mebibytes_is_too_large(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """The size is checked before anything else."""
    answer = await call(http, simulator, "DescribeRegions", {"Blank": " " * (10 << 20)})
    assert code(answer) == "RequestSizeLimitExceeded"


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"DryRun": "true"}, "InvalidParameterValue"),
        ({"ImageIds": "img-00000001"}, "InvalidParameterValue"),
        ({"OnlyExportRootDisk": 1}, "InvalidParameterValue"),
        ({"BucketName": 7}, "InvalidParameterValue"),
        ({"FileNamePrefixList": ["\ud800"]}, "InvalidParameterValue"),
        ({"ClientToken": "once"}, "UnknownParameter"),
    ],
)
async def test_parameters_are_checked_strictly(
    simulator: Simulator, http: httpx.AsyncClient, wrong: dict[str, Any], expected: str
) -> None:
    """A wrong type or an unknown name is refused, also where it could be understood."""
    answer = await call(http, simulator, "ExportImages", GOOD | wrong)
    assert code(answer) == expected


@pytest.mark.parametrize(
    ("method", "query", "expected"),
    [
        ("PUT", "", "UnsupportedProtocol"),
        ("GET", "ImageIds=a&ImageIds.0=b", "InvalidParameter"),
        ("GET", "Filters.0.Names.First=a", "InvalidParameterValue"),
    ],
)
async def test_other_forms_of_request_are_judged_too(
    simulator: Simulator, http: httpx.AsyncClient, method: str, query: str, expected: str
) -> None:
    """A PUT is no protocol of the API, and a query must make sense."""
    headers = signed(simulator, "DescribeImages", b"", method=method, query=query)
    url = f"{simulator.url}/?{query}"
    answer = await http.request(method, url, headers=headers)
    assert code(answer.json()["Response"]) == expected


async def test_an_error_has_the_status_200_and_a_request_id(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """An API error is told in the body alone."""
    answer = await post(http, simulator, "ExportImages", {})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["Response"]["RequestId"] == simulator.ledger[0].request_id


async def test_the_first_of_each_second_pass(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Of a burst the allowance of each second of the clock passes, in order of arrival."""
    simulator.change(limits={"DescribeRegions": 5})
    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(call, http, simulator, "DescribeRegions", {})
    seconds: dict[int, list[str | None]] = defaultdict(list)
    for entry in simulator.ledger:
        seconds[int(entry.arrived)].append(entry.code)
    assert sum(map(len, seconds.values())) == 30
    for codes in seconds.values():
        assert codes[:5] == [None] * len(codes[:5])
        assert codes[5:] == ["RequestLimitExceeded"] * len(codes[5:])
    # else nothing was refused: the burst took six seconds or more
    assert max(map(len, seconds.values())) > 5


async def test_a_refusal_for_rate_tells_the_numbers(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Count and limit stand in the message, as they do at the vendor."""
    simulator.change(limits={"DescribeRegions": 1})
    answer: dict[str, Any] = {}
    while code(answer) is None:
        answer = await call(http, simulator, "DescribeRegions", {})
    assert "`2` in a second" in answer["Error"]["Message"]
    assert "limit `1`" in answer["Error"]["Message"]


async def test_what_is_not_authentic_does_not_count(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Requests that fail authentication leave the allowance alone."""
    simulator.change(limits={"ExportImages": 1})
    for _ in range(3):
        await call(http, simulator, "ExportImages", GOOD, at=0)
    assert code(await export(http, simulator, "img-00000001")) is None


def test_allowances_are_apart_and_renewed_each_second() -> None:
    """Accounts and actions are counted apart, and a new second counts from one."""
    limits = Limits()
    assert [limits.count("a", "X", at) for at in (7.0, 7.99, 8.0)] == [1, 2, 1]
    assert limits.count("b", "X", 8.0) == 1
    assert limits.count("a", "Y", 8.0) == 1
