"""The history: which jobs, in which order, on which pages, and what is shown of one job."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from itertools import product

import pytest

from orchestrator.cli.formatting import csv_cells, job_columns, job_fields, to_json
from orchestrator.clock import iso
from orchestrator.job_states import JobState
from orchestrator.model import JobFilter
from orchestrator.reporting import history as history_module
from orchestrator.reporting.history import Job, history, job_details
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from tests.job_factory import (
    IMAGE_BUSY,
    NOON,
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
from tests.reporting.query_plans import plans

pytestmark = pytest.mark.anyio


async def ids(
    database: Database, wanted: JobFilter | None = None, limit: int | None = None
) -> list[int]:
    return [found.id async for found in history(database, wanted or JobFilter(), limit)]


async def test_newest_job_comes_first(database: Database) -> None:
    """Without a filter all jobs are listed, and an empty store lists none."""
    assert await ids(database) == []
    made = await make_jobs(database, make_requests(3))
    assert await ids(database) == made[::-1]


async def test_pages_list_each_job_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over any number of pages each job is listed once, up to the limit."""
    monkeypatch.setattr(history_module, "_PAGE", 3)
    made = (await make_jobs(database, make_requests(7)))[::-1]
    for limit in (0, 1, 2, 3, 4, 6, 7, 99):
        assert await ids(database, limit=limit) == made[:limit], limit
    assert await ids(database) == made


async def test_job_enqueued_while_reading_shifts_no_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is added between two pages neither repeats nor hides another."""
    monkeypatch.setattr(history_module, "_PAGE", 2)
    made = await make_jobs(database, make_requests(5))
    read = []
    async for found in history(database, JobFilter()):
        read.append(found.id)
        await make_jobs(database, [make_request(100 + len(read))])
    assert read == made[::-1]


async def test_every_field_narrows(database: Database) -> None:
    """Each field of a filter selects its own job, and all of them together none."""
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
]


async def make_variety(database: Database) -> None:
    """Make 40 jobs of three batches, three regions and several states.

    Some of them have a code, and some have several images.
    """
    regions, states = ("ap-seoul", "ap-tokyo", "eu-moscow"), ("queued", "failed", "verified")
    for number, (batch, region, state) in enumerate(product("abc", regions, states)):
        images = tuple(f"img-{number:04}{image:04}" for image in range(1 + number % 3))
        requests = [
            make_request(image_ids=images, region=region, bucket=f"{bucket}-1250000000")
            for bucket in ("one", "two")[: 1 + number % 2]
        ]
        for job_id in await make_jobs(database, requests, batch=f"night-{batch}"):
            columns = {"state": state, "reason": state, "task_id": str(job_id * 1111)}
            await update_job(
                database, job_id, **columns, code=IMAGE_BUSY if state == "failed" else None
            )
    await update_job(database, 5, code="Rare.Code", state=JobState.UNKNOWN)


def is_match(wanted: JobFilter, one: Job) -> bool:
    """Decide in Python what the filter decides in SQL."""

    def has(values: Sequence[str], *stored: object) -> bool:
        patterns = [re.escape(value).replace(r"\*", ".*") for value in values]
        return not values or any(
            re.fullmatch(pattern, str(text)) for pattern in patterns for text in stored
        )

    return (
        has(wanted.batches, one.batch)
        and has(wanted.states, one.state)
        and has(wanted.regions, one.region)
        and has(wanted.buckets, one.bucket)
        and has(wanted.images, *one.image_ids)
        and has(wanted.task_ids, one.task_id)
        and (not wanted.codes or (one.code is not None and has(wanted.codes, one.code)))
        and (has(wanted.jobs, one.tag) or str(one.id) in wanted.jobs)
    )


async def test_each_filter_selects_its_jobs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any filter lists the jobs that match, newest first, each once, page by page."""
    await make_variety(database)
    every = [one async for one in history(database, JobFilter())]
    monkeypatch.setattr(history_module, "_PAGE", 3)
    for wanted in FILTERS:
        right = [one.id for one in every if is_match(wanted, one)]
        assert right, wanted
        assert await ids(database, wanted) == right, wanted
        for limit in (1, 4):
            assert await ids(database, wanted, limit) == right[:limit], wanted
    assert await ids(database, JobFilter(states=("sending",))) == []


async def test_a_job_is_found_by_the_task_id_of_an_earlier_attempt(database: Database) -> None:
    """The job itself keeps the last one only."""
    (job_id, other) = await make_jobs(database, make_requests(2))
    await record_outcome(database, await claim_one(database), make_acceptance(1001))
    await update_job(database, job_id, state=JobState.QUEUED, task_id=None)
    assert await ids(database, JobFilter(task_ids=("1001",))) == [job_id]
    await record_outcome(database, await claim_one(database), make_acceptance(1002))
    for task_id in ("1001", "100*", "1002"):
        assert await ids(database, JobFilter(task_ids=(task_id,))) == [job_id]
    assert (await read_job(database, other)).task_id is None


async def test_repeated_values_mean_or(database: Database) -> None:
    """A job matches if any value of a field matches, plain or a pattern."""
    one, two, three = await make_jobs(database, make_requests(3))
    wanted = JobFilter(images=("img-00000001", "img-*3"))
    assert await ids(database, wanted) == [three, one]
    assert await ids(database, JobFilter(images=("img-*",))) == [three, two, one]


async def test_any_image_of_a_request_selects_its_job(database: Database) -> None:
    """A job of several images is found by each of them, and listed once."""
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
    """In a filter, SQL wildcards and escapes are plain characters, and case matters."""
    for batch in ("a%b", "a_b", "a\\b", "axb"):
        await make_jobs(database, [make_request(1)], batch=batch, again=True)
    for pattern, found in PATTERNS:
        wanted = JobFilter(batches=(pattern,))
        batches = [one.batch async for one in history(database, wanted)]
        assert sorted(batches) == found, pattern


async def test_since_is_inclusive_and_until_is_exclusive(database: Database) -> None:
    """Two adjacent periods share no job and lose none."""
    first = await make_job(database)
    await advance_time(database, hours=1)
    second = await make_job(database)
    boundary = (await read_job(database, second)).created_at
    assert await ids(database, JobFilter(since=boundary)) == [second]
    assert await ids(database, JobFilter(until=boundary)) == [first]
    later = await now(database) + timedelta(seconds=1)
    assert await ids(database, JobFilter(since=later)) == []


async def test_clock_set_back_hides_no_job(database: Database) -> None:
    """A period selects jobs by creation time, even if later jobs have earlier times."""
    (first,) = await make_jobs(database)
    moment = await now(database)
    row = (await read_job(database, first))._asdict()
    hours = {2: 5, 3: 2, 4: 6, 5: 3, 6: 4}
    copies = [
        {**row, "id": job_id, "tag": f"tag-{job_id}", "created_at": moment + timedelta(hours=hour)}
        for job_id, hour in hours.items()
    ]
    async with database.write() as connection:
        await connection.execute(jobs.insert(), copies)
    for begin, end in product(range(8), range(8)):
        since, until = moment + timedelta(hours=begin), moment + timedelta(hours=end)
        right = [job_id for job_id in sorted(hours, reverse=True) if begin <= hours[job_id] < end]
        wanted = JobFilter(since=since, until=until)
        assert [job_id for job_id in await ids(database, wanted) if job_id != first] == right


async def test_unknown_job_name_selects_nothing(database: Database) -> None:
    """A name that is no job's id or tag selects nothing and raises no error."""
    await make_jobs(database)
    for name in ("999999", "9" * 30, "-1", "\N{ARABIC-INDIC DIGIT THREE}", "", "nothing"):
        assert await ids(database, JobFilter(jobs=(name,))) == [], name
        assert await job_details(database, name) is None


IN_ORDER = "SEARCH jobs USING COVERING INDEX ix_jobs_history (id<?)"
PLANS = [
    (JobFilter(), IN_ORDER),
    (JobFilter(batches=("night-a",)), IN_ORDER),
    (JobFilter(states=("failed",)), IN_ORDER),
    (JobFilter(regions=("ap-*",)), IN_ORDER),
    (JobFilter(buckets=("b",)), IN_ORDER),
    (JobFilter(codes=(IMAGE_BUSY,)), IN_ORDER),
    (JobFilter(since=NOON, until=NOON), IN_ORDER),
    (JobFilter(images=("img-1", "img-2")), "ix_job_images_image_id (image_id=?)"),
    (JobFilter(images=("img-*",)), "ix_job_images_image_id (image_id>? AND image_id<?)"),
    (JobFilter(task_ids=("1",)), IN_ORDER),
    (JobFilter(task_ids=("1*",)), IN_ORDER),
    (JobFilter(task_ids=("1*",)), "sqlite_autoindex_attempts_1 (job_id=?)"),
    (JobFilter(jobs=("tag",)), "sqlite_autoindex_jobs_1 (tag=?)"),
]


@pytest.mark.parametrize(("wanted", "step"), PLANS)
async def test_page_ends_as_soon_as_it_is_full(
    sqlite: Database, wanted: JobFilter, step: str
) -> None:
    """Jobs are read in the order of the page, so that none has to be sorted."""
    await make_variety(sqlite)
    async with plans(sqlite) as steps:
        await ids(sqlite, wanted, limit=50)
    assert any(step in one for one in steps), steps
    assert not [one for one in steps if "TEMP B-TREE" in one], steps


async def test_job_shows_what_the_vendor_returned(database: Database) -> None:
    """TaskId as a number, each CosPath, the attempts that counted, and aware times."""
    (job_id,) = await make_jobs(database, [make_request(prefix="web", role_name="R", priority=7)])
    await record_outcome(database, await claim_one(database), make_refusal(IMAGE_BUSY))
    await advance_time(database, minutes=1)
    await record_outcome(
        database, await claim_one(database), make_acceptance(2**64 - 1, "/b.raw", "/a.raw")
    )
    await update_job(database, job_id, warnings=["Too small.", "Archived."])
    (found,) = [one async for one in history(database, JobFilter())]
    row = await read_job(database, job_id)
    assert (found.task_id, found.request_id) == (2**64 - 1, "request-1")
    assert found.cos_paths == ("/a.raw", "/b.raw")
    assert (found.attempts, found.state, found.prefix) == (1, JobState.ACCEPTED, "web")
    assert found.image_ids == ("img-00000001",)
    assert (found.tag, found.accepted_at, found.finished_at) == (row.tag, row.accepted_at, None)
    assert found.created_at.tzinfo is not None
    assert found.warnings == ("Too small.", "Archived.")
    assert (found.only_root_disk, found.role_name, found.priority) == (False, "R", 7)


CONTRACT = (
    *("id", "batch", "state", "region", "image_ids", "bucket", "format", "prefix", "attempts"),
    *("task_id", "request_id", "cos_paths", "code", "message", "remedy", "created_at", "sent_at"),
    *("accepted_at", "finished_at", "evidence", "warnings", "only_root_disk", "role_name"),
    *("priority", "not_before"),
)


def test_scripts_find_every_promised_field() -> None:
    """JSON and CSV have the fields that users were promised; more may follow."""
    assert set(CONTRACT) - set(job_columns()) == set()


@pytest.mark.parametrize("state", JobState)
async def test_evidence_is_that_of_verified_jobs(database: Database, state: JobState) -> None:
    """The objects of a verified job were seen; of any other it is not certain."""
    await make_job(database, state)
    (found,) = [one async for one in history(database, JobFilter())]
    assert found.evidence == ("seen" if state is JobState.VERIFIED else None)


AWKWARD = 'it\'s "quoted", 100 % ünï\\code\n\t\x07 {}'


async def test_json_keeps_every_value(database: Database) -> None:
    """JSON keeps large numbers, times, lists, any text and null, in field order."""
    await make_jobs(
        database, [make_request(image_ids=("img-bbbbbbbb", "img-aaaaaaaa"), prefix="web")]
    )
    await record_outcome(
        database, await claim_one(database), make_acceptance(2**64 - 1, "/b.raw", "/a.raw")
    )
    failed = await make_job(database, JobState.FAILED, code="Some.Code", message=AWKWARD)
    at = NOON.replace(microsecond=999_999)
    await update_job(database, failed, remedy="", finished_at=at)
    second, first = [
        json.loads(to_json(job_fields(one))) async for one in history(database, JobFilter())
    ]
    assert list(first) == list(second) == list(job_columns())
    assert first["task_id"] == 2**64 - 1
    assert first["image_ids"] == ["img-bbbbbbbb", "img-aaaaaaaa"]
    assert first["cos_paths"] == ["/a.raw", "/b.raw"]
    assert (first["only_root_disk"], first["finished_at"]) == (False, None)
    assert (second["message"], second["remedy"], second["task_id"]) == (AWKWARD, "", None)
    assert (second["warnings"], second["role_name"]) == ([], None)
    assert second["finished_at"] == iso(at) == "2026-03-01T12:00:00.999Z"


async def test_csv_cells_are_written_as_in_a_manifest(database: Database) -> None:
    """In CSV cells, semicolons join lists, and booleans are true or false.

    Negative numbers have no quote.
    """
    images = ("img-bbbbbbbb", "img-aaaaaaaa")
    (job_id,) = await make_jobs(
        database, [make_request(image_ids=images, only_root_disk=True, priority=-3)]
    )
    await update_job(database, job_id, warnings=["Too small.", "Archived."])
    (found,) = [one async for one in history(database, JobFilter())]
    cells = dict(zip(job_columns(), csv_cells(found), strict=True))
    assert cells["image_ids"] == "img-bbbbbbbb;img-aaaaaaaa"
    assert cells["warnings"] == "Too small.;Archived."
    assert (cells["only_root_disk"], cells["role_name"], cells["task_id"]) == ("true", "", "")
    assert cells["priority"] == "-3"


async def test_details_have_every_row_in_order(database: Database) -> None:
    """By id or by tag: images, attempts, objects and events of this job and no other."""
    made, _ = await make_jobs(
        database, [make_request(image_ids=("img-bbbbbbbb", "img-aaaaaaaa")), make_request(2)]
    )
    await record_outcome(database, await claim_one(database), make_refusal(IMAGE_BUSY))
    await advance_time(database, minutes=1)
    await add_expected_objects(database, made, "z.raw", "a.raw")
    tag = (await read_job(database, made)).tag
    details = await job_details(database, str(made))
    assert details is not None
    assert details == await job_details(database, tag)
    assert details.job.id == made
    assert details.settings["object_prefix"] == tag
    assert [image["image_id"] for image in details.images] == ["img-bbbbbbbb", "img-aaaaaaaa"]
    assert [attempt["code"] for attempt in details.attempts] == [IMAGE_BUSY]
    assert [one["key"] for one in details.objects] == ["a.raw", "z.raw"]
    assert [event["kind"] for event in details.events] == ["enqueued", "claimed", "postponed"]
