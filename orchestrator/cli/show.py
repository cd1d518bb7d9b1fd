"""``orchestrator show``: one job and all that happened to it."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from orchestrator.cli.formatting import colour, end_with_the_pipe, job_fields, printable, to_json
from orchestrator.cli.options import Config, DatabaseUrl, Json, settings_from
from orchestrator.clock import iso
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.reporting.history import JobDetails
    from orchestrator.settings import Settings


def command(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job's number or tag.")],
    json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
) -> None:
    """Show one job with every attempt, event, TaskId, RequestId and CosPath."""
    end_with_the_pipe()
    settings = settings_from(config=config, database_url=database_url)
    found = anyio.run(_story, settings, job)
    if found is None:
        raise UsageError(
            f"There is no job {job}.", "`orchestrator history` lists them with their numbers."
        )
    if json:
        print(to_json(_as_json(found)))
        return
    for line in _lines(found):
        print(line)


async def _story(settings: "Settings", job: str) -> "JobDetails | None":
    from orchestrator.orchestrator import Orchestrator

    async with Orchestrator(settings=settings, create=False) as orchestrator:
        return await orchestrator.show(job)


def _as_json(found: "JobDetails") -> dict[str, Any]:
    return {
        **job_fields(found.job),
        **found.settings,
        "images": found.images,
        "attempts_made": found.attempts,
        "objects": found.objects,
        "events": found.events,
    }


def _lines(found: "JobDetails") -> Iterator[str]:
    from orchestrator.job_states import JobState

    job = found.job
    yield f"job {job.id}  {colour(job.state, job.state)} ({job.reason})  batch {job.batch}"
    yield f"  images    {', '.join(job.image_ids)} in {job.region}, as {job.format}"
    yield f"  bucket    {job.bucket}, names begin with {found.settings['object_prefix']!r}"
    if job.task_id is not None or job.request_id:
        yield f"  vendor    TaskId {job.task_id or '-'}, RequestId {job.request_id or '-'}"
    if job.code:
        yield printable(f"  why       {job.code}: {job.message or ''}")
        yield printable(f"  remedy    {job.remedy or ''}")
    elif job.message:
        yield printable(f"  note      {job.message} {job.remedy or ''}")
    for warning in job.warnings:
        yield printable(f"  warning   {warning}")
    if job.state is JobState.UNKNOWN:
        yield from _what_to_check(found)
    yield from _section("objects", found.objects, _object_line)
    yield from _section("attempts", found.attempts, _attempt_line)
    yield from _section("events", found.events, _event_line)


def _what_to_check(found: "JobDetails") -> Iterator[str]:
    """How it goes on: by itself, or by what a person finds out."""
    from orchestrator.model import NOT_RULED_OUT

    job, is_exact = found.job, found.settings["exact_names"]
    not_ruled_out = job.reason == NOT_RULED_OUT
    under = found.settings["object_prefix"]
    yield "  next      `orchestrator run` looks for its export in the bucket" + (
        "" if is_exact or not_ruled_out else ", and sends it again if there is none"
    )
    yield "  check     where that does not settle it: objects or uploads in the bucket"
    yield f"            whose names begin with {under!r}: this job's export, and nobody else's" + (
        ", if they are younger than its first attempt" if is_exact else ""
    )
    yield "            in the console, whether the image is being exported"
    yield f"            then: orchestrator settle {job.id} --as accepted|absent --why '...'"


def _section(title: str, rows: tuple[Mapping[str, Any], ...], line: Any) -> Iterator[str]:
    if rows:
        yield title
        for row in rows:
            yield printable(f"  {line(row)}")


def _object_line(row: Mapping[str, Any]) -> str:
    path = row["cos_path"] or f"/{row['key']} (expected)"
    if row["seen_at"] is None:
        return f"{path}  not seen yet"
    crc = f", CRC64 {row['crc64']}" if row["crc64"] else ""
    return f"{path}  {row['size']:,} bytes, ETag {row['etag']}{crc}, seen {iso(row['seen_at'])}"


def _attempt_line(row: Mapping[str, Any]) -> str:
    from orchestrator.model import Reaction

    answer = "no answer recorded"
    if row["answered_at"] is not None:
        code = "accepted" if row["reaction"] == Reaction.ACCEPT else row["code"]
        answer = f"{iso(row['answered_at'])}  {code}"
    ids = [f"{name} {row[key]}" for name, key in _IDS if row[key]]
    said = f": {row['message']}" if row["message"] else ""
    return (
        f"{row['number']:>2}  {iso(row['claimed_at'])} → {answer}{said}  {', '.join(ids)}".rstrip()
    )


_IDS = (("TaskId", "task_id"), ("RequestId", "request_id"))


def _event_line(row: Mapping[str, Any]) -> str:
    move = f"{row['from_state'] or ''} → {row['to_state']}" if row["to_state"] else ""
    details = ", ".join(f"{name} {_short(value)}" for name, value in row["details"].items())
    at: datetime = row["at"]
    # a person is named; which of our processes it was stands in the JSON
    who = f"  by {row['actor']}" if "@" in row["actor"] else ""
    return f"{iso(at)}  {row['kind']:<10} {move:<22} {details}{who}".rstrip()


def _short(value: object) -> str:
    """A detail on part of a line: of objects their keys, of a long text its beginning."""
    if isinstance(value, list):
        names = [str(item["key"]) if isinstance(item, dict) else str(item) for item in value]
        return ", ".join(names) or "none"
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
