"""What goes wrong on the way, as a client over httpx meets it."""

import json

import anyio
import httpx
import pytest

from orchestrator.simulator import Fault, Simulator

from .callers import BUCKET, call, code, export, post, signed, until

pytestmark = pytest.mark.anyio

ONE, TWO = "img-00000001", "img-00000002"


@pytest.mark.parametrize("after", [False, True])
async def test_a_reset_cuts_the_connection(
    simulator: Simulator, http: httpx.AsyncClient, after: bool
) -> None:
    """The client sees a reset; the export runs only where the answer alone was lost."""
    simulator.set_faults(Fault("reset", after=after))
    with pytest.raises(httpx.ReadError) as error:
        await export(http, simulator, ONE)
    assert "ConnectionResetError" in repr(_causes(error.value))
    await until(lambda: len(simulator.ledger) == 1)
    assert len(simulator.exports) == after
    entry = simulator.ledger[0]
    assert (entry.accepted, entry.http_status) == (after, None)
    assert entry.fault == ("reset-after" if after else "reset")


async def test_half_an_answer_is_followed_by_an_end(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """The client misses the rest of a body that was promised; the export runs."""
    simulator.set_faults(Fault("half"))
    with pytest.raises(httpx.RemoteProtocolError):
        await export(http, simulator, ONE)
    assert simulator.exports
    assert simulator.ledger[0].accepted


@pytest.mark.parametrize("after", [False, True])
async def test_a_hanging_server_answers_never(
    simulator: Simulator, http: httpx.AsyncClient, after: bool
) -> None:
    """The client's patience ends it; the export runs only where the request was processed."""
    simulator.set_faults(Fault("hang", after=after))
    body = json.dumps({"ImageIds": [ONE], "BucketName": BUCKET}).encode()
    headers = signed(simulator, "ExportImages", body)
    patience = httpx.Timeout(60, read=0.5)
    with pytest.raises(httpx.ReadTimeout):
        await http.post(f"{simulator.url}/", content=body, headers=headers, timeout=patience)
    await until(lambda: len(simulator.ledger) == 1)
    assert len(simulator.exports) == after


@pytest.mark.parametrize("after", [False, True])
async def test_a_gateway_answers_html(
    simulator: Simulator, http: httpx.AsyncClient, after: bool
) -> None:
    """Its status and page come in place of the answer, before or after the work was done."""
    simulator.set_faults(Fault("gateway", status=504, after=after))
    given = {"ImageIds": [ONE], "BucketName": BUCKET}
    answer = await post(http, simulator, "ExportImages", given)
    assert answer.status_code == 504
    assert answer.text.startswith("<html>")
    assert len(simulator.exports) == after
    assert simulator.ledger[0].http_status == 504


async def test_html_may_come_with_200(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A page where JSON was expected is not told by its status."""
    simulator.set_faults(Fault("html"))
    answer = await post(http, simulator, "DescribeRegions", {})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html")


async def test_json_may_come_without_response(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """JSON that is no answer of the API has no ``Response``."""
    simulator.set_faults(Fault("bare"))
    answer = await post(http, simulator, "DescribeRegions", {})
    assert "Response" not in answer.json()


async def test_latency_passes_before_and_after(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Half of the latency lies before the arrival that counts, half after it."""
    simulator.set_faults(Fault("latency", seconds=0.1, jitter=0.01))
    begin = anyio.current_time()
    await call(http, simulator, "DescribeRegions", {})
    assert anyio.current_time() - begin >= 0.1
    assert simulator.ledger[0].monotonic - begin >= 0.05


async def test_latency_joins_another_fault(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A slow way does not keep the rest from going wrong."""
    simulator.set_faults(Fault("latency", seconds=0.01), Fault("bare"))
    answer = await post(http, simulator, "DescribeRegions", {})
    assert "Response" not in answer.json()


async def test_a_fault_ends_after_its_times(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Two of three requests fail; a new set begins anew; an empty one ends it."""

    async def status() -> int:
        return (await post(http, simulator, "DescribeRegions", {})).status_code

    simulator.set_faults(Fault("gateway", times=2))
    assert [await status() for _ in range(3)] == [502, 502, 200]
    simulator.set_faults(Fault("gateway", times=2))
    assert await status() == 502
    simulator.set_faults()
    assert await status() == 200


async def test_a_fault_may_be_meant_for_some(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """An action, a service or an image can be singled out."""
    simulator.set_faults(
        Fault("gateway", action="DescribeImages"),
        Fault("gateway", images=(TWO,)),
        Fault("html", action="cos", status=200),
    )
    assert (await post(http, simulator, "DescribeImages", {})).status_code == 502
    assert code(await export(http, simulator, ONE)) is None
    given = {"ImageIds": [TWO], "BucketName": BUCKET}
    assert (await post(http, simulator, "ExportImages", given)).status_code == 502
    host = f"{BUCKET}.cos.ap-singapore.myqcloud.com"
    answer = await http.get(f"{simulator.url}/", headers={"Host": host})
    assert answer.headers["Content-Type"] == "text/html"


@pytest.mark.parametrize("fault", [Fault("gateway"), Fault("half"), Fault("reset")])
async def test_a_head_request_meets_faults_too(
    simulator: Simulator, http: httpx.AsyncClient, fault: Fault
) -> None:
    """Where an answer has no body its head is what is torn."""
    simulator.set_faults(fault)
    host = f"{BUCKET}.cos.ap-singapore.myqcloud.com"
    try:
        answer = await http.head(f"{simulator.url}/key", headers={"Host": host})
    except httpx.TransportError:
        assert fault.kind in {"half", "reset"}
    else:
        assert (answer.status_code, answer.content) == (502, b"")


async def test_the_servers_clock_shows_in_its_answers(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A skew moves the Date header, and with it what counts as expired."""
    simulator.change(skew=-3600.0)
    answer = await post(http, simulator, "DescribeRegions", {}, at=1.0)
    assert code(answer.json()["Response"]) == "AuthFailure.SignatureExpire"
    server = httpx.Headers(answer.headers)["Date"]
    simulator.change(skew=0.0)
    assert server != (await post(http, simulator, "DescribeRegions", {})).headers["Date"]


def _causes(error: BaseException) -> list[BaseException]:
    """An exception with all that led to it."""
    found = [error]
    while (error := error.__cause__ or error.__context__ or found[0]) is not found[0]:
        found.append(error)
    return found
