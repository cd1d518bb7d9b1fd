"""Descriptions of images before they are sent: sizes, states, and expected keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

import anyio
import pytest
import sqlalchemy as sa

from orchestrator.job_states import JobState
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import Disk, ImageFacts, ImageFormat
from orchestrator.run_warnings import RunWarnings
from orchestrator.simulator import Fault, ImageSettings, Refusal
from orchestrator.store import BusyRetry, Database
from orchestrator.store.tables import job_images, jobs, objects
from orchestrator.wakeup import Wakeup
from orchestrator.worker import image_describer as describe_module
from orchestrator.worker.image_describer import ImageDescriber, exported_disks
from orchestrator.worker.run_context import RunContext
from tests.job_factory import (
    PROFILE,
    REGION,
    SETTINGS,
    make_jobs,
    make_request,
    make_requests,
    now,
    read_job,
    read_rows,
    update_job,
)
from tests.store_and_cloud import CREDENTIAL, StoreAndCloud, make_admission

pytestmark = pytest.mark.anyio

SYSTEM = Disk("snap-a", "SYSTEM_DISK", 50)
DATA = Disk("snap-b", "DATA_DISK", 100)


@asynccontextmanager
async def describing(setup: StoreAndCloud) -> AsyncIterator[list[str]]:
    """Run a describer until the block ends; yield its messages."""
    said: list[str] = []
    admission = make_admission(setup.database, notify=said.append)
    warnings = RunWarnings(setup.database, PROFILE, said.append)
    describer = ImageDescriber(
        RunContext(SETTINGS, setup.database, setup.cvm, setup.cos, admission, warnings),
        regions=lambda: [REGION, "ap-tokyo"],
        sendable=sa.true(),
        in_flight=anyio.Semaphore(1),
        busy_retry=BusyRetry(said.append),
        wakeup=Wakeup(),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(describer.run)
        yield said
        tasks.cancel_scope.cancel()


async def all_described(database: Database) -> None:
    """Wait until every job is described."""
    query = sa.select(sa.func.count()).where(jobs.c.described_at.is_(None))
    with anyio.fail_after(60):
        while True:
            async with database.read() as connection:
                if (await connection.execute(query)).scalar_one() == 0:
                    return
            await anyio.lowlevel.checkpoint()


async def describe(setup: StoreAndCloud, requests: list[ExportRequest]) -> list[int]:
    """Make jobs of these requests, describe them, and return their ids."""
    ids = await make_jobs(setup.database, requests, described=False)
    async with describing(setup):
        await all_described(setup.database)
    return ids


def asked(setup: StoreAndCloud) -> list[tuple[str | None, int]]:
    """Return region and number of images of each DescribeImages so far."""
    return [(entry.region, len(entry.image_ids)) for entry in setup.simulator.ledger]


async def test_the_expected_keys_equal_the_written_keys(setup: StoreAndCloud) -> None:
    """The keys computed before sending are exactly those that the cloud writes."""
    images = ("img-00000001", "img-00000002")
    setup.simulator.change(images={images[0]: ImageSettings(sizes=(50, 100, 20))})
    several = make_request(image_ids=images)
    formats = [replace(several, format=image_format, prefix="web") for image_format in ImageFormat]
    ids = await describe(setup, [several, replace(several, only_root_disk=True), *formats])
    for job_id in ids:
        before = len(setup.simulator.exports)
        await setup.export_without_answer(job_id)
        setup.finish_exports()
        expected = await read_rows(setup.database, objects, job_id)
        exports = setup.simulator.exports[before:]
        assert {row.key for row in expected} == {one.key for e in exports for one in e.objects}
        assert all(row.expected and row.cos_path is None for row in expected)
        size = (await read_job(setup.database, job_id)).size_gib
        assert size == sum(row.disk_gib for row in expected)


async def test_the_state_of_each_image_is_stored(setup: StoreAndCloud) -> None:
    """The state of each image is stored in its row."""
    images = ("img-00000001", "img-00000002")
    setup.simulator.change(images={images[1]: ImageSettings(state="CREATEFAILED")})
    (job_id,) = await describe(setup, [make_request(image_ids=images)])
    kept = await read_rows(setup.database, job_images, job_id)
    assert [image.state for image in kept] == ["NORMAL", "CREATEFAILED"]


async def test_one_call_describes_up_to_a_hundred_images(setup: StoreAndCloud) -> None:
    """Each image is described once, in calls of the maximum size."""
    await describe(setup, make_requests(250))
    assert asked(setup) == [("ap-singapore", 100), ("ap-singapore", 100), ("ap-singapore", 50)]


async def test_each_region_has_its_own_calls(setup: StoreAndCloud) -> None:
    """The regions take turns, and no call mixes two."""
    await describe(setup, [*make_requests(150), make_request(200, region="ap-tokyo")])
    assert asked(setup) == [("ap-singapore", 100), ("ap-tokyo", 1), ("ap-singapore", 50)]


async def test_an_unknown_image_does_not_affect_the_others(setup: StoreAndCloud) -> None:
    """Known images get their sizes; an unknown one is left to ExportImages."""
    setup.simulator.change(images={"img-00000037": ImageSettings(missing=True)})
    ids = await describe(setup, make_requests(60))
    sizes = [(await read_job(setup.database, job_id)).size_gib for job_id in ids]
    assert sizes[36] == 0
    assert all(sizes[:36] + sizes[37:])
    assert await read_rows(setup.database, objects, ids[36]) == []


async def test_without_permission_jobs_are_sent_undescribed(setup: StoreAndCloud) -> None:
    """The user is notified once, the call is made once, and every job may be sent."""
    code = "UnauthorizedOperation"
    setup.simulator.change(codes=(Refusal(code=code, action="DescribeImages"),))
    ids = await make_jobs(setup.database, make_requests(250), described=False)
    async with describing(setup) as said:
        await all_described(setup.database)
    assert (await read_job(setup.database, ids[-1])).size_gib == 0
    assert len(setup.simulator.ledger) == 1
    assert len(said) == 1
    assert "cvm:DescribeImages" in said[0]


async def test_an_invalid_answer_is_requested_again(setup: StoreAndCloud) -> None:
    """After an invalid answer the call is repeated."""
    setup.simulator.set_faults(Fault(kind="html", action="DescribeImages", times=1))
    (job_id,) = await describe(setup, [make_request()])
    assert (await read_job(setup.database, job_id)).size_gib > 0
    assert len(setup.simulator.ledger) == 2


async def test_a_failing_gateway_is_waited_for(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the calls fail for a short time, no job is sent without a description."""
    monkeypatch.setattr(describe_module, "_IDLE", 0.02)
    setup.simulator.set_faults(Fault("gateway", action="DescribeImages", times=4))
    ids = await describe(setup, make_requests(5))
    assert all([(await read_job(setup.database, job_id)).size_gib for job_id in ids])


async def test_jobs_are_sent_undescribed_when_no_answer_comes(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If calls fail for a while, jobs are sent without sizes, with one warning."""
    monkeypatch.setattr(describe_module, "_IDLE", 0.02)
    monkeypatch.setattr(describe_module, "_GIVE_UP_AFTER", 0.1)
    setup.simulator.set_faults(Fault("gateway", action="DescribeImages"))
    requests = [*make_requests(3), make_request(9, region="ap-tokyo")]
    ids = await make_jobs(setup.database, requests, described=False)
    async with describing(setup) as said:
        await all_described(setup.database)
    assert [(await read_job(setup.database, job_id)).size_gib for job_id in ids] == [0, 0, 0, 0]
    assert len([one for one in said if "DescribeImages has failed" in one]) == 1


@pytest.mark.parametrize("is_described", [False, True])
async def test_a_second_page_in_place_of_the_api_is_told(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch, *, is_described: bool
) -> None:
    """After the second page in place of an API answer, the user is warned once.

    Nothing is sent while a login page answers, and the user must learn why.
    """
    monkeypatch.setattr(describe_module, "_MAX_PAUSE", 0.1)
    setup.simulator.set_faults(Fault("gateway", action="cvm", status=511))
    await make_jobs(setup.database, make_requests(3), described=is_described)
    async with describing(setup) as said:
        with anyio.fail_after(30):
            while len(setup.simulator.ledger) < 4:
                await anyio.sleep(0.01)
    (sentence,) = said
    assert "has not answered as the API yet (Http511: not an answer of the API: <html>" in sentence
    assert "nothing is sent until it answers. It is assumed that a proxy, gateway or" in sentence


async def test_a_short_outage_of_a_gateway_is_not_told(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short outage of a gateway causes no warning.

    Unlike a login page it ends by itself; a long one is reported like any missing answer.
    """
    monkeypatch.setattr(describe_module, "_MAX_PAUSE", 0.1)
    setup.simulator.set_faults(Fault("gateway", action="cvm"))
    await make_jobs(setup.database, make_requests(3), described=False)
    async with describing(setup) as said:
        with anyio.fail_after(30):
            while len(setup.simulator.ledger) < 4:
                await anyio.sleep(0.01)
    assert said == []


@pytest.mark.parametrize("shown", ["no-sizes", "no-snapshots"])
async def test_what_is_missing_in_a_description_is_not_known(
    setup: StoreAndCloud, shown: Literal["no-sizes", "no-snapshots"]
) -> None:
    """Without sizes the keys are expected all the same; without snapshots no key is."""
    setup.simulator.change(describe=shown)
    (job_id,) = await describe(setup, [make_request()])
    keys = await read_rows(setup.database, objects, job_id)
    assert bool(keys) == (shown == "no-sizes")
    assert {key.disk_gib for key in keys} <= {None}
    assert (await read_job(setup.database, job_id)).size_gib == 0
    assert [row.state for row in await read_rows(setup.database, job_images, job_id)] == ["NORMAL"]


@pytest.mark.parametrize(
    "odd",
    [
        Disk("", "DATA_DISK", 20),
        Disk("snap-c", "", 20),
        Disk("snap-c", "SWAP_DISK", 20),
    ],
)
async def test_a_job_with_an_unknown_key_expects_none(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch, odd: Disk
) -> None:
    """If one key of a job is not known, none of its keys is expected.

    With some of its keys the job would count as complete before all of its objects are there.
    """

    async def answer(*_: object, **__: object) -> tuple[ImageFacts, ...]:
        return (
            ImageFacts("img-00000001", "NORMAL", (SYSTEM, odd)),
            ImageFacts("img-00000002", "NORMAL", (SYSTEM, DATA)),
        )

    monkeypatch.setattr(setup.cvm, "describe_images", answer)
    both = ("img-00000001", "img-00000002")
    ids = await describe(setup, [make_request(1), make_request(2), make_request(image_ids=both)])
    keys = [len(await read_rows(setup.database, objects, job_id)) for job_id in ids]
    assert keys == [0, 2, 0]
    assert (await read_job(setup.database, ids[0])).size_gib == 70


async def test_a_refusal_that_stops_exports_sends_one_job_undescribed(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer shows whether exports are refused too; the other jobs wait for it."""
    monkeypatch.setattr(describe_module, "_MAX_PAUSE", 60)
    monkeypatch.setattr(describe_module, "_IDLE", 0.02)
    code = "AuthFailure.SignatureFailure"
    setup.simulator.change(codes=(Refusal(code=code, action="DescribeImages", times=2),))
    ids = await make_jobs(setup.database, make_requests(3), described=False)
    async with describing(setup):
        await all_described(setup.database)
    sizes = [(await read_job(setup.database, job_id)).size_gib for job_id in ids]
    assert [bool(size) for size in sizes] == [False, True, True]


async def test_a_denial_that_passes_does_not_end_the_descriptions(setup: StoreAndCloud) -> None:
    """What was allowed before in this run is asked again."""
    await make_jobs(setup.database, [make_request(1)], described=False)
    async with describing(setup):
        await all_described(setup.database)
        denied = Refusal("UnauthorizedOperation", action="DescribeImages", times=1)
        setup.simulator.change(codes=(denied,))
        (job_id,) = await make_jobs(setup.database, [make_request(2)], described=False)
        await all_described(setup.database)
    assert (await read_job(setup.database, job_id)).size_gib > 0


async def test_a_described_job_is_not_described_again(setup: StoreAndCloud) -> None:
    """A description that another process has stored is not overwritten."""
    (done,) = await make_jobs(setup.database, [make_request(1)], sizes=[7])
    await describe(setup, [make_request(2)])
    assert (await read_job(setup.database, done)).size_gib == 7
    assert await read_rows(setup.database, objects, done) == []


async def test_a_key_that_an_earlier_answer_named_is_expected_too(setup: StoreAndCloud) -> None:
    """A description marks keys as expected even if an earlier answer named them.

    A job that was sent without a description may be described before it is sent again.
    """
    (job_id,) = await describe(setup, [make_request(1)])
    keys = {row.key for row in await read_rows(setup.database, objects, job_id)}
    named = min(keys)
    async with setup.database.write() as connection:
        await connection.execute(objects.delete())
        row = {"job_id": job_id, "key": named, "expected": False, "cos_path": f"/{named}"}
        await connection.execute(objects.insert(), [row])
    await update_job(setup.database, job_id, described_at=None)
    async with describing(setup):
        await all_described(setup.database)
    rows = await read_rows(setup.database, objects, job_id)
    assert {row.key for row in rows if row.expected and row.disk_gib} == keys
    assert [row.key for row in rows if row.cos_path] == [named]


async def test_a_job_that_is_accepted_meanwhile_is_not_described(setup: StoreAndCloud) -> None:
    """A late answer may accept a job while its images are asked for."""
    (job_id,) = await make_jobs(setup.database, [make_request(1)], described=False)
    before = await read_job(setup.database, job_id)
    (facts,) = await setup.cvm.describe_images(REGION, before.image_ids, credential=CREDENTIAL)
    await update_job(setup.database, job_id, state=JobState.ACCEPTED)
    async with setup.database.write() as connection:
        moment = await setup.database.now(connection)
        await describe_module._save(connection, [before], {facts.image_id: facts}, moment)
    assert (await read_job(setup.database, job_id)).described_at is None
    assert await read_rows(setup.database, objects, job_id) == []


async def test_a_cancelled_job_is_not_described(setup: StoreAndCloud) -> None:
    """A job that is cancelled before the call is not part of it."""
    (cancelled,) = await make_jobs(setup.database, [make_request(1)], described=False)
    await update_job(
        setup.database, cancelled, state="cancelled", finished_at=await now(setup.database)
    )
    (waiting,) = await make_jobs(setup.database, [make_request(2)], described=False)
    async with describing(setup):
        with anyio.fail_after(60):
            while (await read_job(setup.database, waiting)).described_at is None:
                await anyio.lowlevel.checkpoint()
    assert asked(setup) == [("ap-singapore", 1)]
    assert (await read_job(setup.database, cancelled)).described_at is None


def test_only_root_disk_leaves_out_data_disks() -> None:
    """With `only_root_disk` the data disks are left out, and nothing else."""
    image = ImageFacts("img-1", "NORMAL", disks=(SYSTEM, DATA))
    assert exported_disks(image, only_root_disk=True) == (SYSTEM,)
    assert exported_disks(image, only_root_disk=False) == (SYSTEM, DATA)
