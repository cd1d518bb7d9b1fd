"""``orchestrator show``: one job with its attempts, objects and events."""

import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.formatting import (
    colour,
    exit_on_closed_pipe,
    job_fields,
    printable,
    text_width,
    to_json,
    utc_and_local,
    wrapped,
)
from orchestrator.cli.options import Json, takes_settings
from orchestrator.clock import iso
from orchestrator.errors import UsageError
from orchestrator.job_states import JobState

if TYPE_CHECKING:
    from orchestrator.reporting.history import JobDetails
    from orchestrator.settings import Settings

_INDENT = " " * 12
"""As wide as a label at the start of a line."""


@takes_settings()
async def command(
    *,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Job id or tag.")],
    json: Json = False,
    settings: "Settings",
) -> None:
    """Show one job with its attempts, objects and events.

    Example: orchestrator show 17 --json
    """
    from orchestrator.orchestrator import Orchestrator

    exit_on_closed_pipe()
    async with Orchestrator(settings=settings, read_only=True) as orchestrator:
        details = await orchestrator.show(job)
    if details is None:
        raise UsageError(
            f"No such job: {job}.", "`orchestrator history` lists jobs with their ids."
        )
    if json:
        rows = {
            "images": details.images,
            "attempts_made": details.attempts,
            "objects": details.objects,
            "events": details.events,
        }
        print(to_json({**job_fields(details.job), **details.settings, **rows}))
        return
    shown = details.job
    state = colour(shown.state, shown.state)
    print(f"job {shown.id}  {state} ({shown.reason})  batch {shown.batch}")
    for line in map(printable, _lines(details)):
        # a key stays in one piece: it will be copied
        is_terminal, width = sys.stdout.isatty(), text_width()
        parts = wrapped(line, width, _INDENT, breaks_words=False) if is_terminal else [line]
        print(*parts, sep="\n")


def _lines(details: "JobDetails") -> Iterator[str]:
    job = details.job
    yield f"  images    {', '.join(job.image_ids)} in {job.region}, format {job.format}"
    yield f"  bucket    {job.bucket}, key prefix {details.settings['object_prefix']!r}"
    if job.not_before is not None:
        yield f"  send      not before {utc_and_local(job.not_before)}"
    if job.task_id is not None or job.request_id:
        yield f"  vendor    TaskId {job.task_id or '-'}, RequestId {job.request_id or '-'}"
    if job.code:
        yield f"  error     {job.code}: {job.message or ''}"
        yield f"  remedy    {job.remedy or ''}"
    elif job.message:
        yield f"  note      {job.message} {job.remedy or ''}"
    for warning in job.warnings:
        yield f"  warning   {warning}"
    if job.state is JobState.UNKNOWN:
        yield from _what_to_check(details)
    for title, rows, line in (
        ("objects", details.objects, _object_line),
        ("attempts", details.attempts, _attempt_line),
        ("events", details.events, _event_line),
    ):
        if rows:
            yield title
            yield from (f"  {line(row)}" for row in rows)


def _what_to_check(details: "JobDetails") -> Iterator[str]:
    """Yield what happens next to an unknown job, and how an operator can resolve it."""
    from orchestrator.model import NOT_RULED_OUT

    job, has_exact_names = details.job, details.settings["exact_names"]
    is_resent = not has_exact_names and job.reason != NOT_RULED_OUT
    resent = ", and sends it again if there is none" if is_resent else ""
    yield f"  next      `orchestrator run` searches the bucket for its export{resent}"
    prefix, images = details.settings["object_prefix"], " or ".join(job.image_ids)
    younger = " if they are younger than the first request for it"
    # a job that was split off has the prefix of the whole one
    has_own_prefix = not has_exact_names and job.tag in prefix
    which = f"starts with {prefix!r}" + ("" if has_own_prefix else f" and contains {images}")
    yield (
        f"  check     objects and uploads in the bucket whose key {which}: they belong to this job"
        + (younger if has_exact_names else "")
    )
    yield (
        f"            others whose key contains {images}: they may belong to it{younger}, because "
        "a bucket may not keep the prefix that was asked for"
    )
    yield "            the console: whether it shows an export of the image"
    yield f"  then      orchestrator resolve {job.id} --as accepted|absent --why '...'"


def _object_line(row: Mapping[str, Any]) -> str:
    path = row["cos_path"] or f"/{row['key']} (expected)"
    if row["seen_at"] is None:
        return f"{path}  not seen yet"
    crc = f", CRC64 {row['crc64']}" if row["crc64"] else ""
    return f"{path}  {row['size']:,} bytes, ETag {row['etag']}{crc}, seen {iso(row['seen_at'])}"


def _attempt_line(row: Mapping[str, Any]) -> str:
    from orchestrator.model import Reaction

    answer = "no response recorded"
    if row["answered_at"] is not None:
        code = "accepted" if row["reaction"] == Reaction.ACCEPT else row["code"]
        answer = f"{iso(row['answered_at'])}  {code}"
    message = f": {row['message']}" if row["message"] else ""
    names = {"task_id": "TaskId", "request_id": "RequestId"}
    ids = ", ".join(f"{name} {row[key]}" for key, name in names.items() if row[key])
    return f"{row['number']:>2}  {iso(row['claimed_at'])} → {answer}{message}  {ids}".rstrip()


def _event_line(row: Mapping[str, Any]) -> str:
    move = f"{row['from_state'] or ''} → {row['to_state']}" if row["to_state"] else ""
    details = ", ".join(
        f"{name} {_short(value)}" for name, value in row["details"].items() if value
    )
    at: datetime = row["at"]
    # Operators are recorded as user@host. Which of our processes it was is only in the JSON.
    who = f"  by {row['actor']}" if "@" in row["actor"] else ""
    return f"{iso(at)}  {row['kind']:<10} {move:<22} {details}{who}".rstrip()


def _short(value: object) -> str:
    """Return an event detail as one short line.

    Objects are shown by their keys. A text of more than 100 characters is cut.
    """
    if isinstance(value, list):
        names = [str(item["key"]) if isinstance(item, dict) else str(item) for item in value]
        return ", ".join(names)
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
