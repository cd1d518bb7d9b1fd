"""The jobs, newest first: which, how many, and all that is kept of one."""

from datetime import timedelta

import pytest

from orchestrator.job_states import JobState
from orchestrator.model import JobFilter
from orchestrator.reporting import search
from orchestrator.reporting.history import history, job_details
from orchestrator.store import Database
from tests.job_factory import (
    IMAGE_BUSY,
    add_expected_objects,
    advance_time,
    claim_one,
    make_acceptance,
    make_job,
    make_jobs,
    make_refusal,
    make_request,
    make_requests,
    now,
    read_job,
    record_outcome,
    update_job,
)

pytestmark = pytest.mark.anyio


async def ids(
    database: Database, wanted: JobFilter | None = None, *, limit: int | None = None
) -> list[int]:
    return [found.id async for found in history(database, wanted or JobFilter(), limit=limit)]


async def test_the_newest_stands_first(database: Database) -> None:
    """Without a filter all jobs come, and of an empty store none."""
    assert await ids(database) == []
    made = await make_jobs(database, make_requests(3))
    assert await ids(database) == made[::-1]


async def test_pages_join_without_a_seam(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over any number of pages each job comes once, up to the limit."""
    monkeypatch.setattr(search, "_PAGE", 3)
    made = (await make_jobs(database, make_requests(7)))[::-1]
    for limit in (0, 1, 2, 3, 4, 6, 7, 99):
        assert await ids(database, limit=limit) == made[:limit], limit
    assert await ids(database) == made


async def test_a_job_enqueued_while_reading_disturbs_no_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is added between two pages neither repeats nor hides a job."""
    monkeypatch.setattr(search, "_PAGE", 2)
    made = await make_jobs(database, make_requests(5))
    read = []
    async for found in history(database, JobFilter()):
        read.append(found.id)
        await make_jobs(database, [make_request(100 + len(read))])
    assert read == made[::-1]


async def test_every_field_narrows(database: Database) -> None:
    """Each filter lets its own job through, and all of them together none."""
    plain, special = await make_jobs(
        database, [make_request(1), make_request(2, region="ap-tokyo", bucket="other-1250000000")]
    )
    (other_batch,) = await make_jobs(database, [make_request(3)], batch="morning")
    await update_job(
        database, special, task_id=str(2**64 - 1), code=IMAGE_BUSY, state=JobState.FAILED
    )
    tag = (await read_job(database, special)).tag
    for one in (
        JobFilter(regions=("ap-tokyo",)),
        JobFilter(buckets=("other-1250000000",)),
        JobFilter(images=("img-00000002",)),
        JobFilter(task_ids=(str(2**64 - 1),)),
        JobFilter(codes=(IMAGE_BUSY,)),
        JobFilter(states=("failed",)),
        JobFilter(jobs=(str(special),)),
        JobFilter(jobs=(tag,)),
        JobFilter(batches=("night",), states=("failed",)),
    ):
        assert await ids(database, one) == [special], one
    assert await ids(database, JobFilter(batches=("morning",))) == [other_batch]
    assert await ids(database, JobFilter(batches=("morning",), states=("failed",))) == []
    assert await ids(database, JobFilter(jobs=(str(plain), tag))) == [special, plain]


async def test_repeated_values_mean_or(database: Database) -> None:
    """One field's values add up, patterns among them."""
    one, two, three = await make_jobs(database, make_requests(3))
    wanted = JobFilter(images=("img-00000001", "img-*3"))
    assert await ids(database, wanted) == [three, one]
    assert await ids(database, JobFilter(images=("img-*",))) == [three, two, one]


async def test_any_image_of_a_request_finds_its_job(database: Database) -> None:
    """A job of several images is found by each of them, once."""
    (job_id,) = await make_jobs(
        database, [make_request(image_ids=("img-aaaaaaaa", "img-aaaaaaab"))]
    )
    assert await ids(database, JobFilter(images=("img-aaaaaaab",))) == [job_id]
    assert await ids(database, JobFilter(images=("img-aaaaaaa*",))) == [job_id]


PATTERNS: list[tuple[str, list[str]]] = [
    ("*", ["a%b", "a\\b", "a_b", "axb"]),
    ("a*b", ["a%b", "a\\b", "a_b", "axb"]),
    ("a%*", ["a%b"]),
    ("*_b", ["a_b"]),
    ("a\\*", ["a\\b"]),
    ("a_b", ["a_b"]),
    ("A*", []),
    ("x*", []),
]


async def test_only_the_star_is_a_wildcard(database: Database) -> None:
    """What SQL would take for a wildcard or an escape stands for itself, and case counts."""
    for batch in ("a%b", "a_b", "a\\b", "axb"):
        await make_jobs(database, [make_request(1)], batch=batch, again=True)
    for pattern, found in PATTERNS:
        wanted = JobFilter(batches=(pattern,))
        batches = [one.batch async for one in history(database, wanted)]
        assert sorted(batches) == found, pattern


async def test_since_is_inclusive_and_until_is_not(database: Database) -> None:
    """Two periods that meet share no job and lose none."""
    first = await make_job(database)
    await advance_time(database, hours=1)
    second = await make_job(database)
    seam = (await read_job(database, second)).created_at
    assert await ids(database, JobFilter(since=seam)) == [second]
    assert await ids(database, JobFilter(until=seam)) == [first]
    later = await now(database) + timedelta(seconds=1)
    assert await ids(database, JobFilter(since=later)) == []


async def test_a_name_of_nothing_finds_nothing(database: Database) -> None:
    """Neither a number out of reach nor any other text is a job or a fault."""
    await make_jobs(database)
    for name in ("999999", "9" * 30, "-1", "\N{ARABIC-INDIC DIGIT THREE}", "", "nothing"):
        assert await ids(database, JobFilter(jobs=(name,))) == [], name
        assert await job_details(database, name) is None


async def test_a_job_shows_what_the_vendor_said(database: Database) -> None:
    """TaskId as the number it is, each CosPath, the attempts that counted, and aware times."""
    (job_id,) = await make_jobs(database, [make_request(prefix="web")])
    await record_outcome(database, await claim_one(database), make_refusal(IMAGE_BUSY))
    await advance_time(database, minutes=1)
    await record_outcome(
        database, await claim_one(database), make_acceptance(2**64 - 1, "/a.raw", "/b.raw")
    )
    (found,) = [one async for one in history(database, JobFilter())]
    row = await read_job(database, job_id)
    assert (found.task_id, found.request_id) == (2**64 - 1, "request-1")
    assert found.cos_paths == ("/a.raw", "/b.raw")
    assert (found.attempts, found.state, found.prefix) == (1, JobState.ACCEPTED, "web")
    assert found.image_ids == ("img-00000001",)
    assert (found.tag, found.accepted_at, found.finished_at) == (row.tag, row.accepted_at, None)
    assert found.created_at.tzinfo is not None


async def test_a_story_has_everything_in_its_order(database: Database) -> None:
    """By number or by tag: images, attempts, objects and events of this job and no other."""
    made, _ = await make_jobs(
        database, [make_request(image_ids=("img-bbbbbbbb", "img-aaaaaaaa")), make_request(2)]
    )
    await record_outcome(database, await claim_one(database), make_refusal(IMAGE_BUSY))
    await advance_time(database, minutes=1)
    await add_expected_objects(database, made, "z.raw", "a.raw")
    tag = (await read_job(database, made)).tag
    told = await job_details(database, str(made))
    assert told is not None
    assert told == await job_details(database, tag)
    assert told.job.id == made
    assert told.settings["object_prefix"] == tag
    assert [image["image_id"] for image in told.images] == ["img-bbbbbbbb", "img-aaaaaaaa"]
    assert [attempt["code"] for attempt in told.attempts] == [IMAGE_BUSY]
    assert [one["key"] for one in told.objects] == ["a.raw", "z.raw"]
    assert [event["kind"] for event in told.events] == ["enqueued", "claimed", "postponed"]
