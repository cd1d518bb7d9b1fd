"""The checks of CVM before an action: signature, version, rate and form of the parameters."""

from collections import defaultdict
from typing import Any

import anyio
import httpx
import pytest

from orchestrator.simulator import Simulator
from orchestrator.simulator.request_counts import Limits
from tests.simulator.clients import BUCKET, call, code_of, export, make_signed_headers, post

pytestmark = pytest.mark.anyio

GOOD = {"ImageIds": ["img-00000001"], "BucketName": BUCKET}


@pytest.mark.parametrize(
    "headers", ["content-type;host", "content-type;host;x-tc-action;x-tc-timestamp"]
)
async def test_any_list_of_signed_headers_is_verified(
    simulator: Simulator, http: httpx.AsyncClient, headers: str
) -> None:
    """A signature may cover any headers that include the two required ones."""
    answer = await call(http, simulator, "ExportImages", GOOD, signed_headers=headers)
    assert code_of(answer) is None


@pytest.mark.parametrize(
    "fault",
    [
        {"signed_headers": "content-type"},
        {"signed_headers": "content-type;host;x-tc-absent"},
        {"service": "cbs"},
        {"date": "2026-01-01"},
    ],
)
async def test_incomplete_signature_fails(
    simulator: Simulator, http: httpx.AsyncClient, fault: dict[str, Any]
) -> None:
    """Host must be signed, signed headers must exist, service and date must match."""
    answer = await call(http, simulator, "ExportImages", GOOD, **fault)
    assert code_of(answer) == "AuthFailure.SignatureFailure"


async def test_changed_body_fails(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """One more blank in the body invalidates the signature."""
    headers = make_signed_headers(simulator, "DescribeRegions", b"{}")
    answer = await http.post(f"{simulator.url}/", content=b"{ }", headers=headers)
    assert code_of(answer.json()["Response"]) == "AuthFailure.SignatureFailure"


@pytest.mark.parametrize("authorization", ["", "Basic abc", "TC3-HMAC-SHA256 Credential=x"])
async def test_malformed_authorization_has_its_code(
    simulator: Simulator, http: httpx.AsyncClient, authorization: str
) -> None:
    """A header without the form of TC3 has its own code."""
    headers = make_signed_headers(simulator, "DescribeRegions", b"{}") | {
        "Authorization": authorization
    }
    answer = await http.post(f"{simulator.url}/", content=b"{}", headers=headers)
    assert code_of(answer.json()["Response"]) == "AuthFailure.InvalidAuthorization"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("X-TC-Timestamp", "", "MissingParameter"),
        ("X-TC-Timestamp", "now", "InvalidParameterValue"),
        ("X-TC-Action", None, "MissingParameter"),
        ("X-TC-Version", None, "MissingParameter"),
    ],
)
async def test_common_parameters_are_required(
    simulator: Simulator, http: httpx.AsyncClient, name: str, value: str | None, expected: str
) -> None:
    """A missing or malformed parameter has its code, and the message names it."""
    headers = make_signed_headers(simulator, "DescribeRegions", b"{}")
    headers = {one: headers[one] for one in headers if one != name}
    headers |= {} if value is None else {name: value}
    answer = (await http.post(f"{simulator.url}/", content=b"{}", headers=headers)).json()
    assert code_of(answer["Response"]) == expected
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
    assert code_of(answer) == expected


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
async def test_charset_in_content_type_is_accepted(
    simulator: Simulator, http: httpx.AsyncClient, content_type: str
) -> None:
    """A charset after the content type changes nothing."""
    answer = await call(http, simulator, "ExportImages", GOOD, content_type=content_type)
    assert code_of(answer) is None


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"[" * 100_000])
async def test_body_that_is_not_an_object_is_refused(
    simulator: Simulator, http: httpx.AsyncClient, body: bytes
) -> None:
    """A list, incomplete JSON, invalid UTF-8 or deep nesting is an InvalidParameter."""
    headers = make_signed_headers(simulator, "DescribeRegions", body)
    answer = await http.post(f"{simulator.url}/", content=body, headers=headers)
    assert code_of(answer.json()["Response"]) == "InvalidParameter"


async def test_body_over_ten_mebibytes_is_refused(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """The size is checked before anything else."""
    answer = await call(http, simulator, "DescribeRegions", {"Blank": " " * (10 << 20)})
    assert code_of(answer) == "RequestSizeLimitExceeded"


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
    """A wrong type or an unknown name is refused, even if it could be understood."""
    answer = await call(http, simulator, "ExportImages", GOOD | wrong)
    assert code_of(answer) == expected


@pytest.mark.parametrize(
    ("method", "query", "expected"),
    [
        ("PUT", "", "UnsupportedProtocol"),
        ("GET", "ImageIds=a&ImageIds.0=b", "InvalidParameter"),
        ("GET", "Filters.0.Names.First=a", "InvalidParameterValue"),
    ],
)
async def test_other_forms_of_request_are_checked(
    simulator: Simulator, http: httpx.AsyncClient, method: str, query: str, expected: str
) -> None:
    """PUT is refused, and the parameters of a query must be consistent."""
    headers = make_signed_headers(simulator, "DescribeImages", b"", method=method, query=query)
    url = f"{simulator.url}/?{query}"
    answer = await http.request(method, url, headers=headers)
    assert code_of(answer.json()["Response"]) == expected


async def test_error_has_status_200_and_a_request_id(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """An API error is visible only in the body."""
    answer = await post(http, simulator, "ExportImages", {})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["Response"]["RequestId"] == simulator.ledger[0].request_id


async def test_rate_limit_admits_the_first_of_each_second(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Of a burst the limit of each second is admitted, in order of arrival."""
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


async def test_rate_refusal_has_count_and_limit(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """The message has the count and the limit, as the vendor's has."""
    simulator.change(limits={"DescribeRegions": 1})
    answer: dict[str, Any] = {}
    while code_of(answer) is None:
        answer = await call(http, simulator, "DescribeRegions", {})
    assert "`2` in a second" in answer["Error"]["Message"]
    assert "limit `1`" in answer["Error"]["Message"]


async def test_unauthenticated_requests_do_not_count(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Requests that fail authentication are not counted against the rate limit."""
    simulator.change(limits={"ExportImages": 1})
    for _ in range(3):
        await call(http, simulator, "ExportImages", GOOD, at=0)
    assert code_of(await export(http, simulator, "img-00000001")) is None


def test_requests_are_counted_per_account_action_and_second() -> None:
    """Accounts and actions are counted separately, and a new second counts from one."""
    limits = Limits()
    assert [limits.count("a", "X", at) for at in (7.0, 7.99, 8.0)] == [1, 2, 1]
    assert limits.count("b", "X", 8.0) == 1
    assert limits.count("a", "Y", 8.0) == 1
