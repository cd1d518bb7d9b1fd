"""Network faults, as a client with httpx sees them."""

import json

import anyio
import httpx
import pytest

from orchestrator.simulator import Fault, Simulator

from .clients import BUCKET, call, code_of, export, make_signed_headers, post, wait_until

pytestmark = pytest.mark.anyio

ONE, TWO = "img-00000001", "img-00000002"


@pytest.mark.parametrize("after", [False, True])
async def test_reset_closes_the_connection(
    simulator: Simulator, http: httpx.AsyncClient, after: bool
) -> None:
    """The client sees a reset; the export begins only if just the answer was lost."""
    simulator.set_faults(Fault("reset", after=after))
    with pytest.raises(httpx.ReadError) as error:
        await export(http, simulator, ONE)
    assert "ConnectionResetError" in repr(_causes(error.value))
    await wait_until(lambda: len(simulator.ledger) == 1)
    assert len(simulator.exports) == after
    entry = simulator.ledger[0]
    assert (entry.accepted, entry.http_status) == (after, None)
    assert entry.fault == ("reset-after" if after else "reset")


async def test_half_an_answer(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """The client misses the rest of the body; the export has begun."""
    simulator.set_faults(Fault("half"))
    with pytest.raises(httpx.RemoteProtocolError):
        await export(http, simulator, ONE)
    assert simulator.exports
    assert simulator.ledger[0].accepted


@pytest.mark.parametrize("after", [False, True])
async def test_hanging_server_never_answers(
    simulator: Simulator, http: httpx.AsyncClient, after: bool
) -> None:
    """The client times out; the export begins only if the request was processed."""
    simulator.set_faults(Fault("hang", after=after))
    body = json.dumps({"ImageIds": [ONE], "BucketName": BUCKET}).encode()
    headers = make_signed_headers(simulator, "ExportImages", body)
    patience = httpx.Timeout(60, read=0.5)
    with pytest.raises(httpx.ReadTimeout):
        await http.post(f"{simulator.url}/", content=body, headers=headers, timeout=patience)
    await wait_until(lambda: len(simulator.ledger) == 1)
    assert len(simulator.exports) == after


@pytest.mark.parametrize("after", [False, True])
async def test_gateway_error_is_html(
    simulator: Simulator, http: httpx.AsyncClient, after: bool
) -> None:
    """Status and page of a gateway replace the answer, before or after processing."""
    simulator.set_faults(Fault("gateway", status=504, after=after))
    given = {"ImageIds": [ONE], "BucketName": BUCKET}
    answer = await post(http, simulator, "ExportImages", given)
    assert answer.status_code == 504
    assert answer.text.startswith("<html>")
    assert len(simulator.exports) == after
    assert simulator.ledger[0].http_status == 504


async def test_html_with_status_200(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A page instead of JSON can have status 200."""
    simulator.set_faults(Fault("html"))
    answer = await post(http, simulator, "DescribeRegions", {})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html")


async def test_json_without_response(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """JSON that is not an answer of the API lacks ``Response``."""
    simulator.set_faults(Fault("bare"))
    answer = await post(http, simulator, "DescribeRegions", {})
    assert "Response" not in answer.json()


async def test_latency_before_and_after_processing(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Half of the latency is before the arrival in the ledger, half after it."""
    simulator.set_faults(Fault("latency", seconds=0.1, jitter=0.01))
    begin = anyio.current_time()
    await call(http, simulator, "DescribeRegions", {})
    assert anyio.current_time() - begin >= 0.1
    assert simulator.ledger[0].monotonic - begin >= 0.05


async def test_latency_combines_with_another_fault(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A delayed request can meet another fault."""
    simulator.set_faults(Fault("latency", seconds=0.01), Fault("bare"))
    answer = await post(http, simulator, "DescribeRegions", {})
    assert "Response" not in answer.json()


async def test_fault_ends_after_its_number_of_uses(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A fault ends after its number of uses, or when the faults are removed.

    The uses of new faults are counted from the start.
    """

    async def status() -> int:
        return (await post(http, simulator, "DescribeRegions", {})).status_code

    simulator.set_faults(Fault("gateway", times=2))
    assert [await status() for _ in range(3)] == [502, 502, 200]
    simulator.set_faults(Fault("gateway", times=2))
    assert await status() == 502
    simulator.set_faults()
    assert await status() == 200


async def test_fault_can_be_limited(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A fault can be limited to an action, a service or an image."""
    simulator.set_faults(
        Fault("gateway", action="DescribeImages"),
        Fault("gateway", images=(TWO,)),
        Fault("html", action="cos", status=200),
    )
    assert (await post(http, simulator, "DescribeImages", {})).status_code == 502
    assert code_of(await export(http, simulator, ONE)) is None
    given = {"ImageIds": [TWO], "BucketName": BUCKET}
    assert (await post(http, simulator, "ExportImages", given)).status_code == 502
    host = f"{BUCKET}.cos.ap-singapore.myqcloud.com"
    answer = await http.get(f"{simulator.url}/", headers={"Host": host})
    assert answer.headers["Content-Type"] == "text/html"


@pytest.mark.parametrize("fault", [Fault("gateway"), Fault("half"), Fault("reset")])
async def test_half_an_answer_to_head(
    simulator: Simulator, http: httpx.AsyncClient, fault: Fault
) -> None:
    """An answer without a body is cut within its headers."""
    simulator.set_faults(fault)
    host = f"{BUCKET}.cos.ap-singapore.myqcloud.com"
    try:
        answer = await http.head(f"{simulator.url}/key", headers={"Host": host})
    except httpx.TransportError:
        assert fault.kind in {"half", "reset"}
    else:
        assert (answer.status_code, answer.content) == (502, b"")


async def test_skew_changes_the_date_header(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A skew changes the Date header and what counts as expired."""
    simulator.change(skew=-3600.0)
    answer = await post(http, simulator, "DescribeRegions", {}, at=1.0)
    assert code_of(answer.json()["Response"]) == "AuthFailure.SignatureExpire"
    server = httpx.Headers(answer.headers)["Date"]
    simulator.change(skew=0.0)
    assert server != (await post(http, simulator, "DescribeRegions", {})).headers["Date"]


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and all its causes."""
    found = [error]
    while (error := error.__cause__ or error.__context__ or found[0]) is not found[0]:
        found.append(error)
    return found
