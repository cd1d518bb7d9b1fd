"""How jobs are found: whatever the way to them, the same jobs in the same order."""

from datetime import timedelta
from itertools import product

import pytest
import sqlalchemy as sa

from orchestrator.job_queue.job_filter import matches
from orchestrator.job_states import JobState
from orchestrator.model import JobFilter
from orchestrator.reporting import search
from orchestrator.reporting.search import pages
from orchestrator.store import Database
from orchestrator.store.tables import BLOCK, jobs
from tests.job_factory import IMAGE_BUSY, NOON, make_jobs, make_request, now, read_job, update_job
from tests.reporting.query_plans import plans

pytestmark = pytest.mark.anyio


async def found(database: Database, wanted: JobFilter, *, limit: int | None = None) -> list[int]:
    """Numbers of the jobs, as the pages tell them."""
    told = pages(database, wanted, (jobs.c.id,), limit=limit)
    return [row.id async for page in told for row in page]


async def expected(database: Database, wanted: JobFilter) -> list[int]:
    """The same by the plainest query."""
    query = sa.select(jobs.c.id).where(matches(wanted)).order_by(jobs.c.id.desc())
    async with database.read() as connection:
        return list((await connection.execute(query)).scalars())


async def make_variety(database: Database) -> None:
    """Thirty-six jobs of three batches, regions and states, some with codes and several images."""
    regions, states = ("ap-seoul", "ap-tokyo", "eu-moscow"), ("queued", "failed", "verified")
    for number, (batch, region, state) in enumerate(product("abc", regions, states)):
        images = tuple(f"img-{number:04}{image:04}" for image in range(1 + number % 3))
        asked = [
            make_request(image_ids=images, region=region, bucket=f"{bucket}-1250000000")
            for bucket in ("one", "two")[: 1 + number % 2]
        ]
        for job_id in await make_jobs(database, asked, batch=f"night-{batch}"):
            columns = {"state": state, "reason": state, "task_id": str(job_id * 1111)}
            await update_job(
                database, job_id, **columns, code=IMAGE_BUSY if state == "failed" else None
            )
    await update_job(database, 5, code="Rare.Code", state=JobState.UNKNOWN)


FILTERS = [
    JobFilter(),
    JobFilter(batches=("night-a",)),
    JobFilter(batches=("night-a", "night-c", "night-a", "none")),
    JobFilter(batches=("night-*",)),
    JobFilter(batches=("*-b", "night-c")),
    JobFilter(states=("failed",)),
    JobFilter(states=("unknown", "ver*")),
    JobFilter(regions=("ap-*",)),
    JobFilter(regions=("eu-moscow",), states=("failed", "queued")),
    JobFilter(buckets=("two-1250000000",)),
    JobFilter(buckets=("*",)),
    JobFilter(images=("img-00020000",)),
    JobFilter(images=("img-0002*",)),
    JobFilter(images=("img-*1",), regions=("ap-tokyo",)),
    JobFilter(task_ids=("5555", "6666")),
    JobFilter(task_ids=("1*",)),
    JobFilter(task_ids=("5555",), images=("img-*",)),
    JobFilter(codes=(IMAGE_BUSY,)),
    JobFilter(codes=("*",)),
    JobFilter(codes=("Rare*",), states=("unknown",)),
    JobFilter(codes=(IMAGE_BUSY,), batches=("night-b",)),
    JobFilter(jobs=("3", "4", "36")),
    JobFilter(jobs=("*a*",)),
    JobFilter(jobs=("3", "*a*")),
    JobFilter(states=("sending",)),
]


@pytest.fixture(params=[0, 7, 1000], ids="{} nearby".format)
def nearby(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of three jobs; none, some or all of them are looked for one by one."""
    monkeypatch.setattr(search, "_PAGE", 3)
    monkeypatch.setattr(search, "_NEAR", request.param)
    monkeypatch.setattr(search, "_NEAR_A_ROW", 0)


async def test_each_way_finds_the_same(database: Database, nearby: None) -> None:
    """One by one or by any index, page by page: the jobs that match, newest first, each once."""
    await make_variety(database)
    for wanted in FILTERS:
        right = await expected(database, wanted)
        assert await found(database, wanted) == right, wanted
        for limit in (1, 4):
            assert await found(database, wanted, limit=limit) == right[:limit], wanted


async def test_what_has_been_tried_finds_something(database: Database) -> None:
    """Each of the filters lets some jobs through, but for the last."""
    await make_variety(database)
    counts = [len(await expected(database, wanted)) for wanted in FILTERS]
    assert [count for count in counts if count == 0] == [counts[-1]]


async def test_a_page_that_ends_with_its_period_is_the_last(
    database: Database, nearby: None
) -> None:
    """Where a full page ends at the first number that may match, nothing is told twice."""
    (first,) = await make_jobs(database)
    moment = await now(database)
    row = (await read_job(database, first))._asdict()
    tonight = [
        {**row, "id": BLOCK + n, "tag": f"t-{n}", "created_at": moment + timedelta(hours=1)}
        for n in range(6)
    ]
    async with database.write() as connection:
        await connection.execute(jobs.insert(), tonight)
    wanted = JobFilter(since=moment + timedelta(minutes=30))
    assert await found(database, wanted) == [BLOCK + n for n in reversed(range(6))]


async def test_a_clock_that_was_set_back_hides_no_job(database: Database) -> None:
    """A period has the jobs of its time, whatever their numbers, and those alone."""
    (first,) = await make_jobs(database)
    moment = await now(database)
    row = (await read_job(database, first))._asdict()
    hours = {1: 0, BLOCK + 1: 5, 2 * BLOCK + 1: 2, 2 * BLOCK + 2: 6, 4 * BLOCK: 3, 5 * BLOCK: 4}
    times = {number: moment + timedelta(hours=hour) for number, hour in hours.items()}
    copies = [
        {**row, "id": number, "tag": f"tag-{number}", "created_at": time}
        for number, time in times.items()
        if number != first
    ]
    async with database.write() as connection:
        await connection.execute(jobs.insert(), copies)
    for begin, end in product(range(8), range(8)):
        since, until = moment + timedelta(hours=begin), moment + timedelta(hours=end)
        for wanted in (
            JobFilter(since=since),
            JobFilter(until=until),
            JobFilter(since=since, until=until, batches=("night",)),
        ):
            assert await found(database, wanted) == await expected(database, wanted), wanted


NAMED = [
    (JobFilter(batches=("night-a",)), "ix_jobs_batch (batch=? AND state=? AND reason=? AND id>?"),
    (JobFilter(batches=("night-*", "x")), "ix_jobs_batch (batch<?)"),
    (JobFilter(states=("failed",)), "ix_jobs_place (state=? AND bucket=? AND region=? AND id>?"),
    (JobFilter(regions=("ap-*",)), "ix_jobs_place (state=? AND bucket=? AND region<?)"),
    (JobFilter(buckets=("b",)), "ix_jobs_place (state=? AND bucket<?)"),
    (JobFilter(codes=(IMAGE_BUSY,)), "ix_jobs_code (code=? AND id>?"),
    (JobFilter(codes=("*",)), "ix_jobs_code (code<?)"),
    (JobFilter(images=("img-1", "img-2")), "ix_job_images_image_id (image_id=?)"),
    (JobFilter(images=("img-*",)), "ix_job_images_image_id (image_id>? AND image_id<?)"),
    (JobFilter(task_ids=("1",)), "ix_jobs_task_id (task_id=?)"),
    (JobFilter(task_ids=("1*",)), "ix_jobs_task_id (task_id>? AND task_id<?)"),
    (JobFilter(jobs=("tag",)), "sqlite_autoindex_jobs_1 (tag=?)"),
    (JobFilter(jobs=("tag*",)), "sqlite_autoindex_jobs_1 (tag>? AND tag<?)"),
    (JobFilter(since=NOON), "ix_jobs_created (<expr>=? AND created_at>?)"),
    (JobFilter(until=NOON), "ix_jobs_created (<expr>=? AND created_at<?)"),
]


@pytest.mark.parametrize(("wanted", "index"), NAMED)
async def test_no_filter_reads_all_jobs(
    sqlite: Database, wanted: JobFilter, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each filter has its index; what is looked through one by one lies between two numbers."""
    monkeypatch.setattr(search, "_NEAR", 7)
    monkeypatch.setattr(search, "_NEAR_A_ROW", 0)
    await make_variety(sqlite)
    async with plans(sqlite) as steps:
        await found(sqlite, wanted, limit=50)
    assert any(index in step for step in steps), steps
    read_through = ("SCAN jobs ", "SCAN one ", "SCAN each ", "SCAN job_images ")
    assert not [step for step in steps if f"{step} ".startswith(read_through)], steps
