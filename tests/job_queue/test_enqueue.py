"""Enqueueing: one job for each request, and all of them or none."""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from orchestrator.job_queue.enqueue import EnqueueResult, _fingerprint, enqueue
from orchestrator.job_states import JobState
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import ImageFormat
from orchestrator.store import Database
from orchestrator.store.tables import events, job_images, jobs, scopes
from tests.job_factory import (
    BUCKET,
    PROFILE,
    REGION,
    TESTER,
    make_jobs,
    make_request,
    make_requests,
    now,
    read_event_kinds,
    read_job,
    read_rows,
    update_job,
)
from tests.postgresql_server import administer
from tests.reporting.query_plans import plans

pytestmark = pytest.mark.anyio


async def add(
    database: Database, requests: Sequence[ExportRequest], *, again: bool = False
) -> EnqueueResult:
    return await enqueue(database, requests, profile=PROFILE, batch="b", again=again, actor=TESTER)


async def count(database: Database, table: sa.Table = jobs) -> int:
    async with database.read() as connection:
        query = sa.select(sa.func.count()).select_from(table)
        return int((await connection.execute(query)).scalar_one())


async def test_job_contains_the_whole_request(database: Database) -> None:
    """Every field of the request is in the row, and the object prefix has a new tag."""
    asked = make_request(
        image_ids=("img-bbbbbbbb", "img-aaaaaaaa"),
        format=ImageFormat.QCOW2,
        prefix="web",
        only_root_disk=True,
        role_name="Writer",
        priority=-3,
    )
    (job_id,) = await make_jobs(database, [asked], described=False)
    row = await read_job(database, job_id)
    kept = ExportRequest(
        tuple(row.image_ids),
        row.region,
        row.bucket,
        ImageFormat(row.format),
        row.prefix,
        row.only_root_disk,
        row.role_name,
        row.priority,
    )
    assert kept == asked
    assert re.fullmatch("[a-z2-7]{12}", row.tag)
    assert row.object_prefix == f"web-{row.tag}"
    assert (row.state, row.reason, row.described_at) == (JobState.QUEUED, "new", None)
    assert (row.attempt, row.attempts_charged, row.deferrals, row.maybe_applied) == (0, 0, 0, False)
    assert row.due_at == row.created_at
    images = await read_rows(database, job_images, job_id)
    assert [image.image_id for image in images] == list(asked.image_ids)
    (event,) = await read_rows(database, events, job_id)
    assert (event.kind, event.to_state, event.actor) == ("enqueued", "queued", TESTER)


async def test_images_of_each_request_keep_their_order(database: Database) -> None:
    """Requests of one batch may have different numbers of images."""
    named = [tuple(f"img-{n:04}{m:04}" for m in range(n, 0, -1)) for n in (1, 3, 2)]
    ids = await make_jobs(database, [make_request(image_ids=images) for images in named])
    kept = [await read_rows(database, job_images, job_id) for job_id in ids]
    assert [tuple(image.image_id for image in images) for images in kept] == named
    assert [image.position for image in kept[1]] == [0, 1, 2]


async def test_exact_name_has_no_tag(database: Database) -> None:
    """The prefix of the object keys is the user's prefix alone."""
    (job_id,) = await make_jobs(database, [make_request(prefix="web", exact_names=True)])
    assert (await read_job(database, job_id)).object_prefix == "web"


async def test_job_is_due_at_its_not_before(database: Database) -> None:
    """The reason says why the job waits."""
    later = await now(database) + timedelta(days=2)
    (job_id,) = await make_jobs(database, [make_request(not_before=later)])
    row = await read_job(database, job_id)
    assert (row.due_at, row.reason) == (later, "not before")


async def test_duplicates_are_not_added(database: Database) -> None:
    """However often a manifest is enqueued, each of its requests is one job."""
    assert await add(database, make_requests(3)) == EnqueueResult("b", added=3)
    assert await add(database, make_requests(3)) == EnqueueResult("b", duplicates=3)
    assert await add(database, make_requests(4)) == EnqueueResult("b", added=1, duplicates=3)
    assert await count(database) == await count(database, events) == 4


async def test_request_repeated_within_a_batch_is_a_duplicate(database: Database) -> None:
    """Two equal requests may be in one chunk, or in two."""
    repeated = [*make_requests(2100), make_request(1), make_request(2100)]
    assert await add(database, repeated) == EnqueueResult("b", added=2100, duplicates=2)


async def test_again_adds_duplicates(database: Database) -> None:
    """The second job for a request has another tag."""
    await add(database, make_requests(2))
    assert await add(database, make_requests(2), again=True) == EnqueueResult("b", added=2)
    async with database.read() as connection:
        tags = (await connection.execute(sa.select(jobs.c.tag))).scalars().all()
    assert len(set(tags)) == 4


@pytest.mark.parametrize(
    ("state", "maybe_applied", "blocks"),
    [
        (JobState.QUEUED, False, True),
        (JobState.SENDING, False, True),
        (JobState.UNKNOWN, True, True),
        (JobState.ACCEPTED, False, True),
        (JobState.VERIFIED, False, True),
        (JobState.FAILED, False, False),
        (JobState.FAILED, True, True),
        (JobState.CANCELLED, False, False),
    ],
)
async def test_job_that_may_have_exported_blocks_its_duplicate(
    database: Database, state: JobState, maybe_applied: bool, blocks: bool
) -> None:
    """A cancelled job does not block, nor does a failed job that had no effect."""
    (job_id,) = await make_jobs(database)
    owner = TESTER if state is JobState.SENDING else None
    await update_job(database, job_id, state=state, maybe_applied=maybe_applied, owner=owner)
    assert (await add(database, [make_request()])).duplicates == blocks


OTHER_OBJECTS: list[dict[str, Any]] = [
    {"format": ImageFormat.VHD},
    {"prefix": "web"},
    {"bucket": "other-1250000000"},
    {"region": "ap-tokyo"},
    {"only_root_disk": True},
    {"exact_names": True},
    {"image_ids": ("img-00000001", "img-00000002")},
]


async def test_request_for_other_objects_is_not_a_duplicate(database: Database) -> None:
    """Requests are no duplicates if a field that changes the objects differs.

    Examples are the format and the prefix.
    """
    await add(database, [make_request()])
    for fields in OTHER_OBJECTS:
        assert (await add(database, [make_request(**fields)])).added == 1, fields


async def test_priority_time_and_role_do_not_distinguish_requests(database: Database) -> None:
    """They do not change what is exported."""
    await add(database, [make_request()])
    later = await now(database) + timedelta(days=1)
    sent_otherwise = make_request(priority=9, role_name="Writer", not_before=later)
    assert (await add(database, [sent_otherwise])).duplicates == 1


async def test_order_of_images_does_not_distinguish_requests(database: Database) -> None:
    """The same images in another order are the same export."""
    images = ("img-00000001", "img-00000002")
    await add(database, [make_request(image_ids=images)])
    assert (await add(database, [make_request(image_ids=images[::-1])])).duplicates == 1


async def test_spelling_of_values_does_not_distinguish_requests(database: Database) -> None:
    """Values that are normalized to the same request are duplicates."""
    plain = ExportRequest(("img-1a2b3c4d",), REGION, BUCKET, ImageFormat.QCOW2, "", True)
    written = ExportRequest(" img-1a2b3c4d", f"{REGION} ", BUCKET, "qcow2", " ", "yes")
    assert _fingerprint(PROFILE, written) == _fingerprint(PROFILE, plain)
    (job_id,) = await make_jobs(database, [written])
    assert (await add(database, [plain])).duplicates == 1
    images = await read_rows(database, job_images, job_id)
    assert [image.image_id for image in images] == ["img-1a2b3c4d"]
    assert (await read_job(database, job_id)).image_ids == ["img-1a2b3c4d"]


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "qcow2"},
        {"format": ImageFormat.QCOW2},
        {"format": "qcow2", "image_ids": "img-00000001"},
        {"format": "qcow2", "image_ids": ["img-00000001"]},
    ],
)
def test_fingerprint_depends_on_the_normalized_values(fields: dict[str, Any]) -> None:
    """A format in lower case and an image id as text have the same fingerprint."""
    plain = make_request(format=ImageFormat.QCOW2)
    assert _fingerprint("default", make_request(**fields)) == _fingerprint("default", plain)


def test_fingerprint_does_not_change_between_versions() -> None:
    """Requests that an older version enqueued are still duplicates."""
    asked = make_request(
        image_ids=("img-bbbbbbbb", "img-aaaaaaaa"),
        format=ImageFormat.QCOW2,
        prefix="größe/x",
        only_root_disk=True,
    )
    known = "e231cffe36810626c8f5c47c38df1b4fc2b897ff09cc852d80ec22c244a3ff34"
    assert _fingerprint("default", asked) == known


async def test_duplicates_are_found_by_the_index_of_fingerprints(sqlite: Database) -> None:
    """The look-up reads only jobs with the same fingerprints, not all jobs."""
    async with plans(sqlite, writer=True) as steps:
        await add(sqlite, make_requests(2000))
    assert "SEARCH jobs USING INDEX ix_jobs_fingerprint (fingerprint=?)" in steps


async def test_request_of_another_profile_is_not_a_duplicate(database: Database) -> None:
    """The same request for another profile has its own job and its own scope."""
    await add(database, [make_request()])
    result = await enqueue(database, [make_request()], profile="other", batch="b", actor=TESTER)
    assert result.added == 1
    async with database.read() as connection:
        query = sa.select(scopes.c.profile, scopes.c.region).order_by(scopes.c.profile)
        found = (await connection.execute(query)).all()
    assert [tuple(row) for row in found] == [(PROFILE, REGION), ("other", REGION)]


async def test_error_among_the_requests_adds_nothing(database: Database) -> None:
    """An error after the first chunk leaves no job, no event and no scope."""

    def failing() -> Iterator[ExportRequest]:
        yield from make_requests(2100)
        raise RuntimeError("cannot read")

    with pytest.raises(RuntimeError, match="cannot read"):
        await enqueue(database, failing(), profile=PROFILE, batch="b", actor=TESTER)
    for table in (jobs, job_images, events, scopes):
        assert await count(database, table) == 0


async def test_batch_gets_a_default_name(database: Database) -> None:
    """The name begins with the time, and differs each time."""
    made = [await enqueue(database, [], profile=PROFILE, actor=TESTER) for _ in range(2)]
    moment = await now(database)
    assert made[0].batch.startswith(f"{moment:%Y%m}")
    assert made[0].batch != made[1].batch


async def test_job_that_a_retry_adds_meanwhile_is_not_changed(postgresql: Database) -> None:
    """Enqueueing adds no second images or event to a job that a retry has added."""
    (job_id,) = await make_jobs(postgresql, batch="b")
    kept = ", ".join(column.name for column in jobs.c if column.name not in {"id", "tag"})
    split = (
        f"WITH part AS (INSERT INTO jobs (tag, {kept}) SELECT 'part', {kept} FROM jobs"  # noqa: S608 - our columns
        f" WHERE id = {job_id} RETURNING id)"
        " INSERT INTO events (job_id, at, kind, actor, details)"
        " SELECT id, now(), 'split off', 'another', '{}' FROM part"
    )

    def meanwhile(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO jobs "):
            administer(postgresql.url, split)

    sa.event.listen(postgresql._writer.sync_engine, "before_cursor_execute", meanwhile)
    assert (await add(postgresql, [make_request(2)])).added == 1
    assert await count(postgresql) == 3
    assert await read_event_kinds(postgresql, job_id + 1) == ["split off"]
    assert await read_rows(postgresql, job_images, job_id + 1) == []
    assert await read_event_kinds(postgresql, job_id + 2) == ["enqueued"]


async def test_concurrent_enqueue_adds_each_request_once(
    databases: Sequence[Database],
) -> None:
    """If four processes enqueue the same requests at once, only one adds the jobs."""
    results: list[EnqueueResult] = []

    async def one(database: Database) -> None:
        results.append(await add(database, make_requests(20)))

    async with anyio.create_task_group() as tasks:
        for database in databases:
            tasks.start_soon(one, database)
    assert sorted(result.added for result in results) == [0, 0, 0, 20]
    assert await count(databases[0]) == 20
