"""What the images are, before they are sent: sizes, states, and the keys to expect."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
import sqlalchemy as sa

from orchestrator.limits.admission import Admission
from orchestrator.limits.rate_limiter import RateLimiters
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import Disk, ImageFacts, ImageFormat
from orchestrator.simulator import Fault, ImageSettings, Refusal
from orchestrator.store import BusyRetry, Database
from orchestrator.store.tables import job_images, jobs, objects
from orchestrator.wakeup import Wakeup
from orchestrator.worker import image_describer as describe_module
from orchestrator.worker.image_describer import ImageDescriber, exported_disks, object_key
from orchestrator.worker.run_settings import RunContext
from tests.cloud.scripted_server import FixedCredentials
from tests.job_factory import (
    PROFILE,
    REGION,
    make_jobs,
    make_request,
    make_requests,
    now,
    read_job,
    read_rows,
    update_job,
)
from tests.store_and_cloud import CREDENTIAL, StoreAndCloud

pytestmark = pytest.mark.anyio

SYSTEM = Disk("snap-a", "SYSTEM_DISK", 50)
DATA = Disk("snap-b", "DATA_DISK", 100)


@asynccontextmanager
async def describing(setup: StoreAndCloud) -> AsyncIterator[list[str]]:
    """A describer at work; what it told the user."""
    said: list[str] = []
    admission = Admission(
        PROFILE,
        RateLimiters(setup.database, 0),
        FixedCredentials(CREDENTIAL),
        said.append,
        quota_wait=60,
    )
    describer = ImageDescriber(
        RunContext(setup.database, setup.cvm, setup.cos, admission),
        PROFILE,
        regions=lambda: ["ap-tokyo", REGION],
        sendable=sa.true,
        in_flight=anyio.Semaphore(1),
        busy_retry=BusyRetry(said.append),
        wakeup=Wakeup(),
        notify=said.append,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(describer.run)
        yield said
        tasks.cancel_scope.cancel()


async def all_described(database: Database) -> None:
    """Returns when no job waits for its description any more."""
    query = sa.select(sa.func.count()).where(jobs.c.described_at.is_(None))
    with anyio.fail_after(60):
        while True:
            async with database.read() as connection:
                if (await connection.execute(query)).scalar_one() == 0:
                    return
            await anyio.lowlevel.checkpoint()


async def describe(setup: StoreAndCloud, requests: list[ExportRequest]) -> list[int]:
    """Jobs of these requests, described."""
    ids = await make_jobs(setup.database, requests, described=False)
    async with describing(setup):
        await all_described(setup.database)
    return ids


def asked(setup: StoreAndCloud) -> list[tuple[str | None, int]]:
    """Region and number of images of each DescribeImages so far."""
    return [(entry.region, len(entry.image_ids)) for entry in setup.simulator.ledger]


async def test_the_expected_keys_are_those_that_come(setup: StoreAndCloud) -> None:
    """What was computed before the first send is what the cloud then writes, to the letter."""
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


async def test_an_image_that_is_broken_is_known_as_such(setup: StoreAndCloud) -> None:
    """The state of each image is kept beside it."""
    images = ("img-00000001", "img-00000002")
    setup.simulator.change(images={images[1]: ImageSettings(state="CREATEFAILED")})
    (job_id,) = await describe(setup, [make_request(image_ids=images)])
    kept = await read_rows(setup.database, job_images, job_id)
    assert [image.state for image in kept] == ["NORMAL", "CREATEFAILED"]


async def test_a_hundred_are_asked_for_at_a_time(setup: StoreAndCloud) -> None:
    """Each image once, in calls of as many as the vendor takes."""
    await describe(setup, make_requests(250))
    assert asked(setup) == [("ap-singapore", 100), ("ap-singapore", 100), ("ap-singapore", 50)]


async def test_each_region_is_asked_for_its_own(setup: StoreAndCloud) -> None:
    """The regions take turns, and no call mixes two."""
    await describe(setup, [*make_requests(150), make_request(200, region="ap-tokyo")])
    assert asked(setup) == [("ap-singapore", 100), ("ap-tokyo", 1), ("ap-singapore", 50)]


async def test_an_unknown_image_keeps_no_other_from_being_described(setup: StoreAndCloud) -> None:
    """The ones that exist get their sizes; the one that does not is left to ExportImages."""
    setup.simulator.change(images={"img-00000037": ImageSettings(missing=True)})
    ids = await describe(setup, make_requests(60))
    sizes = [(await read_job(setup.database, job_id)).size_gib for job_id in ids]
    assert sizes[36] == 0
    assert all(sizes[:36] + sizes[37:])
    assert await read_rows(setup.database, objects, ids[36]) == []


async def test_an_account_that_may_not_ask_goes_without(setup: StoreAndCloud) -> None:
    """It is said once, asked once, and every job may be sent, with nothing known of it."""
    code = "UnauthorizedOperation"
    setup.simulator.change(codes=(Refusal(code=code, action="DescribeImages"),))
    ids = await make_jobs(setup.database, make_requests(250), described=False)
    async with describing(setup) as said:
        await all_described(setup.database)
    assert (await read_job(setup.database, ids[-1])).size_gib == 0
    assert len(setup.simulator.ledger) == 1
    assert len(said) == 1
    assert "cvm:DescribeImages" in said[0]


async def test_trouble_passes(setup: StoreAndCloud) -> None:
    """An answer that makes no sense is asked for again."""
    setup.simulator.set_faults(Fault(kind="html", action="DescribeImages", times=1))
    (job_id,) = await describe(setup, [make_request()])
    assert (await read_job(setup.database, job_id)).size_gib > 0
    assert len(setup.simulator.ledger) == 2


async def test_a_gateway_out_of_order_is_waited_for(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing is answered at all no job goes without its description."""
    monkeypatch.setattr(describe_module, "_IDLE", 0.02)
    setup.simulator.set_faults(Fault("gateway", action="DescribeImages", times=4))
    ids = await describe(setup, make_requests(5))
    assert all([(await read_job(setup.database, job_id)).size_gib for job_id in ids])


async def test_jobs_are_sent_undescribed_when_no_answer_comes(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a period of failed calls the jobs go without sizes, and the user is warned once."""
    monkeypatch.setattr(describe_module, "_IDLE", 0.02)
    monkeypatch.setattr(describe_module, "_GIVE_UP_AFTER", 0.1)
    setup.simulator.set_faults(Fault("gateway", action="DescribeImages"))
    requests = [*make_requests(3), make_request(9, region="ap-tokyo")]
    ids = await make_jobs(setup.database, requests, described=False)
    async with describing(setup) as said:
        await all_described(setup.database)
    assert [(await read_job(setup.database, job_id)).size_gib for job_id in ids] == [0, 0, 0, 0]
    assert len([one for one in said if "DescribeImages has failed" in one]) == 1


async def test_what_is_described_is_not_described_again(setup: StoreAndCloud) -> None:
    """A job that somebody else has described meanwhile keeps what it has."""
    (done,) = await make_jobs(setup.database, [make_request(1)], sizes=[7])
    await describe(setup, [make_request(2)])
    assert (await read_job(setup.database, done)).size_gib == 7
    assert await read_rows(setup.database, objects, done) == []


async def test_what_has_ended_is_not_described(setup: StoreAndCloud) -> None:
    """A job that was cancelled before anybody asked is not asked for."""
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


@pytest.mark.parametrize(
    ("disk", "prefix", "key"),
    [
        (SYSTEM, "web", "web_img-1_system_snap-a.qcow2"),
        (DATA, "web", "web_img-1_data_snap-b.qcow2"),
        (SYSTEM, "", "img-1_system_snap-a.qcow2"),
    ],
)
def test_a_key_is_made_of_prefix_image_and_snapshot(disk: Disk, prefix: str, key: str) -> None:
    """As the vendor's page on exporting images has it; without a prefix the image leads."""
    assert object_key(prefix, "img-1", disk, ImageFormat.QCOW2) == key


def test_only_the_root_disk_means_that() -> None:
    """Data disks are left out where they are not wanted, and nothing else is."""
    image = ImageFacts("img-1", "NORMAL", disks=(SYSTEM, DATA))
    assert exported_disks(image, only_root_disk=True) == (SYSTEM,)
    assert exported_disks(image, only_root_disk=False) == (SYSTEM, DATA)
