"""Nothing is claimed before the server's time is known; only then signatures expire as expected."""

import re
from datetime import timedelta
from email.utils import formatdate
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import SIGNATURE_LIFETIME
from orchestrator.job_states import JobState
from orchestrator.learned_vendor_facts import VendorFact
from orchestrator.limits.admission import DESCRIBE
from orchestrator.model import Scope
from orchestrator.simulator import Duration, Fault, Refusal, Simulator, cos, cos_xml, routing
from orchestrator.store import Database
from orchestrator.store.tables import attempts
from orchestrator.worker import image_describer, maintenance
from tests.cloud.scripted_server import http
from tests.end_to_end.harness import (
    BUCKET,
    REGION,
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_orchestrator,
    make_requests_for,
    once_each,
    read_jobs,
    read_ledger,
    run_and_change,
    run_and_stop_when,
    run_to_end,
)
from tests.job_factory import CAP_REACHED, read_rows, update_job
from tests.proxy_servers import http_proxy

pytestmark = pytest.mark.anyio

VENDOR_LIFETIME = timedelta(seconds=300)


@pytest.mark.parametrize("skew", [-3600.0, -400.0, -20.0, 0.0, 20.0, 250.0, 3600.0])
async def test_signatures_have_expired_when_resending_is_allowed(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path, skew: float
) -> None:
    """However wrong the clock is, signatures expire before a resend is allowed.

    This holds for the first request and for a resumed run too.
    """
    cloud.change(skew=skew)
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))
    # a job that an earlier process has described: nothing has to be asked before its claim
    async with open_store() as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1, first=2)))
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/orchestrator.db", SystemClock())
        await update_job(database, 3, described_at=SystemClock().now())
        result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 1
    for job in (1, 2, 3):
        for attempt in await read_rows(database, attempts, job):
            # the vendor refuses it from then on, by its own clock, which is ahead by the skew
            expires_at = attempt.signed_at + VENDOR_LIFETIME - timedelta(seconds=skew)
            assert expires_at <= attempt.claimed_at + SIGNATURE_LIFETIME
            assert expires_at > attempt.claimed_at
    await database.close()
    assert not [entry for entry in read_ledger(cloud) if entry.code]


async def test_server_time_is_learned_before_the_first_claim(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """DescribeImages, which gives the server's time, precedes the first ExportImages."""
    async with open_store(verify="off") as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    actions = [entry.action for entry in cloud.ledger if entry.service == "cvm"]
    assert actions == ["DescribeImages", "ExportImages"]


async def test_nothing_is_sent_to_a_server_that_does_not_tell_its_time(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a valid Date header the run says why it waits, and claims no job."""
    monkeypatch.setattr(routing, "formatdate", lambda *_, **__: "someday")
    said: list[str] = []
    async with open_store(verify="off", notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1)))
        result = await run_and_stop_when(
            orchestrator,
            lambda: len(read_ledger(cloud, "DescribeImages")) > 4 or bool(read_ledger(cloud)),
        )
    assert not read_ledger(cloud)
    assert result.counts[JobState.QUEUED] == 1
    assert len([sentence for sentence in said if "sends no Date header" in sentence]) == 1


@pytest.mark.parametrize("refusals", [(), (Refusal("UnauthorizedOperation", action=DESCRIBE),)])
async def test_a_date_header_that_comes_later_is_used(
    open_store: OpenStore,
    cloud: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    refusals: tuple[Refusal, ...],
) -> None:
    """The run asks for the time until a Date header comes, and the warning ends.

    It also asks if DescribeImages is not permitted.
    """
    cloud.change(codes=refusals)
    said: list[str] = []
    images = make_image_ids(2)
    async with open_store(notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(images))
        with monkeypatch.context() as without_date:
            without_date.setattr(routing, "formatdate", lambda *_, **__: "someday")
            result = await run_and_change(
                orchestrator, lambda: "sends no Date header" in "".join(said), without_date.undo
            )
        told = [warning.message for warning in (await orchestrator.status()).warnings]
    assert result.counts[JobState.VERIFIED] == len(images)
    assert not [message for message in told if "nothing is sent" in message]
    assert len([sentence for sentence in said if "sends no Date header" in sentence]) == 1


@pytest.mark.parametrize("status", [200, 403])
async def test_page_of_a_gateway_opens_no_way_to_exports(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """No export is sent while a gateway answers with a page; one warning says so.

    The Date header of the page is not the vendor's.
    """
    monkeypatch.setattr(image_describer, "_GIVE_UP_AFTER", 0.5)
    monkeypatch.setattr(image_describer, "_MAX_PAUSE", 0.1)
    cloud.change(faults=(Fault("gateway", action="cvm", status=status),))
    images, said = make_image_ids(6), list[str]()

    def is_told_and_asked_again() -> bool:
        told = any("nothing is sent" in sentence for sentence in said)
        return told and len(read_ledger(cloud, "DescribeRegions")) > 3

    async with open_store(notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(images))
        result = await run_and_change(
            orchestrator, is_told_and_asked_again, lambda: cloud.change(faults=())
        )
    assert result.counts[JobState.VERIFIED] == len(images)
    assert count_exports(cloud) == once_each(images)
    assert {entry.fault for entry in read_ledger(cloud)} == {None}
    (sentence,) = said
    assert f"(Http{status}: not an answer of the API: <html>" in sentence


async def test_page_of_a_proxy_opens_no_way_to_exports(
    cloud: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All hosts are answered by it, STS too, and all answers have a Date header."""
    monkeypatch.setattr(image_describer, "_GIVE_UP_AFTER", 0.5)
    monkeypatch.setattr(image_describer, "_MAX_PAUSE", 0.1)
    date = {"Date": formatdate(usegmt=True)}
    page = http("<html>blocked", status="403 Forbidden", headers=date)
    said: list[str] = []
    async with http_proxy(cloud.port, answer=page) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        open_store = partial(make_orchestrator, "http://cloud.example", tmp_path)
        async with open_store(allow_plain_http=True, notify=said.append) as orchestrator:
            await orchestrator.enqueue(make_requests_for(make_image_ids(2)))
            told = "nothing is sent until it answers"
            result = await run_and_stop_when(orchestrator, lambda: told in " ".join(said))
            assert {job.attempts for job in await read_jobs(orchestrator)} == {0}
            warned = (await orchestrator.status()).warnings
    assert result.counts[JobState.QUEUED] == 2
    assert not cloud.ledger
    assert said[0] == f"Proxy: {proxy.address} (HTTP_PROXY)."
    assert len(said) == 2
    assert f"(Http403: not an answer of the API: through the proxy {proxy.address}" in said[1]
    assert "(HTTP_PROXY): <html>blocked" in said[1]
    assert [f"Warning: {warning.message}" for warning in warned] == said[1:]


async def test_absurd_times_of_a_server_are_ignored(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absurd times of a server neither end the run nor cancel a request in flight."""
    absurd = ("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
    dates = cycle((formatdate(usegmt=True), *absurd))
    monkeypatch.setattr(routing, "formatdate", lambda *_, **__: next(dates))
    objects = cycle(absurd)
    monkeypatch.setattr(cos, "formatdate", lambda *_, **__: next(objects))
    monkeypatch.setattr(cos_xml, "_time", lambda _: "9999-12-31T23:59:59-12:00")
    images = make_image_ids(8)
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert result.counts[JobState.VERIFIED] == len(images)
    assert count_exports(cloud) == once_each(images)


@pytest.mark.parametrize("skew", [-3600.0, -200.0, 200.0, 3600.0])
async def test_a_wrong_date_header_of_cvm_stops_nothing(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path, skew: float
) -> None:
    """A CDN sends it: all is exported, and no signature lives longer than is assumed."""
    cloud.change(cvm_date_skew=skew)
    images = make_image_ids(20)
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
        assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    assert (result.counts[JobState.VERIFIED], result.blocked) == (len(images), ())
    assert count_exports(cloud) == once_each(images)
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/orchestrator.db", SystemClock())
    for job in range(1, len(images) + 1):
        for attempt in await read_rows(database, attempts, job):
            expires_at = attempt.signed_at + VENDOR_LIFETIME
            assert expires_at <= attempt.claimed_at + SIGNATURE_LIFETIME
    await database.close()


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
@pytest.mark.parametrize("clock", ["cos_date_skew", "cos_skew"])
async def test_the_time_of_cos_does_not_stop_exports(
    open_store: OpenStore, cloud: Simulator, clock: str, skew: float
) -> None:
    """A wrong Date header or clock of COS delays neither exports nor verification.

    No request to CVM is refused for its date, also not after the first look into a bucket.
    """
    cloud.change(**{clock: skew}, cap=3, limits={})
    images = make_image_ids(10)
    said: list[str] = []
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert (result.counts[JobState.VERIFIED], result.blocked) == (len(images), ())
    assert count_exports(cloud) == once_each(images)
    assert {entry.code for entry in read_ledger(cloud)} <= {None, CAP_REACHED}
    assert said == []


async def test_a_clock_refusal_of_cos_concerns_its_bucket(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """If COS refuses every date, exports go on, and the bucket is unreadable."""
    cloud.change(codes=(Refusal("RequestTimeTooSkewed", action="cos"),))
    images = make_image_ids(10)
    said: list[str] = []
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert (result.counts[JobState.ACCEPTED], result.blocked) == (len(images), ())
    assert count_exports(cloud) == once_each(images)
    (sentence,) = said
    assert "cannot be read" in sentence
    assert "NTP" in sentence


async def test_two_wrong_clocks_halt_with_the_offset(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """If both clocks are wrong, the halt names the offset and the Date header's host."""
    cloud.change(skew=7200, cvm_date_skew=-3600)
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4)))
    (halt,) = result.blocked
    assert halt.scope is Scope.CLOCK
    said = rf"the Date header of 127\.0\.0\.1:{cloud.port} is (3599|3600) s ahead of this machine"
    assert re.search(said, halt.message)
    assert "NTP" in halt.remedy
    assert not count_exports(cloud)


async def test_the_largest_offset_of_each_host_is_recorded(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store remembers it, and `status` shows it."""
    monkeypatch.setattr(maintenance, "_INTERVAL", 0.05)
    cloud.change(cos_skew=-7200, duration=Duration(seconds=0.5))
    sts = f"localhost:{cloud.port}"
    async with open_store(sts_endpoint=f"http://{sts}") as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))
        learned = (await orchestrator.status()).vendor
    offsets = {one.subject: one.value for one in learned if one.fact is VendorFact.CLOCK_OFFSET}
    assert offsets.keys() == {sts, f"127.0.0.1:{cloud.port}", f"{BUCKET}.cos.{REGION}.myqcloud.com"}
    assert abs(int(offsets[f"{BUCKET}.cos.{REGION}.myqcloud.com"]) + 7200) <= 2
    assert abs(int(offsets[f"127.0.0.1:{cloud.port}"])) <= 2
