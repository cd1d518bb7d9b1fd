"""What commands print: JSON, CSV, and lines for eyes."""

import json
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator.clock import iso

if TYPE_CHECKING:
    from orchestrator.reporting.history import Job

JOB_FIELDS = (
    "id",
    "batch",
    "state",
    "region",
    "image_ids",
    "bucket",
    "format",
    "prefix",
    "attempts",
    "task_id",
    "request_id",
    "cos_paths",
    "code",
    "message",
    "remedy",
    "created_at",
    "sent_at",
    "accepted_at",
    "finished_at",
    "reason",
    "tag",
    "warnings",
    "only_root_disk",
    "role_name",
    "priority",
)
"""The fields of a job, in the order in which every output has them."""

_COLOURS = {
    "verified": "32",
    "accepted": "36",
    "sending": "36",
    "unknown": "33",
    "failed": "31",
    "cancelled": "90",
}
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_json(value: Mapping[str, Any]) -> str:
    """One JSON object on one line; times in UTC with ``Z``."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return iso(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def job_fields(job: "Job") -> dict[str, Any]:
    """A job as every output shows it."""
    return {name: getattr(job, name) for name in JOB_FIELDS}


def csv_cells(job: "Job") -> list[str]:
    """A job as a row of CSV; a cell that a spreadsheet would run is made harmless."""
    return [_cell(value) for value in job_fields(job).values()]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    text = ";".join(value) if isinstance(value, tuple) else str(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def job_line(job: "Job") -> str:
    """A job for eyes, on one line; on a narrow terminal what is wrong with it stands below."""
    when = iso(job.finished_at or job.accepted_at or job.sent_at or job.created_at)
    task = "-" if job.task_id is None else str(job.task_id)
    state = colour(f"{job.state:<9}", job.state)
    images = f"{_and_more(job.image_ids):<16}"
    start = f"{job.id:>6}  {state}  "
    line, room = f"{images} {job.region:<14} {task:>10}  {when}", _columns() - 19
    if job.code is None:
        return start + _cut(f"{line}  {printable(_and_more(job.cos_paths) or job.reason)}", room)
    why = printable(f"{job.code}: {job.remedy}")
    if len(line) + 2 + len(why) <= room:
        return f"{start}{line}  {why}"
    below = textwrap.wrap(why, max(20, _columns() - len(_INDENT)))
    return "\n".join([start + _cut(line, room), *(_INDENT + part for part in below)])


def heading_of_jobs() -> str:
    """What stands above `job_line`."""
    columns = f"{'image':<16} {'region':<14} {'task':>10}  {'last step':<24}  result"
    return _cut(f"{'job':>6}  {'state':<9}  {columns}", _columns())


_INDENT = 8 * " "
_ANY = 1_000_000


def _columns() -> int:
    """Of the terminal; a pipe takes lines of any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _ANY


def _cut(line: str, room: int) -> str:
    return line if len(line) <= room else f"{line[: max(0, room - 1)]}…"


def _and_more(names: tuple[str, ...]) -> str:
    """The first name, and how many follow."""
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return f"{names[0]}{more}" if names else ""


def colour(text: str, state: str) -> str:
    """The text in the colour of a state, where stdout is a terminal that shows colours."""
    shown = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if not shown or os.environ.get("TERM") == "dumb" or state not in _COLOURS:
        return text
    return f"\x1b[{_COLOURS[state]}m{text}\x1b[0m"


def printable(text: str) -> str:
    """A text from elsewhere without control characters, which a terminal would obey."""
    return "".join(ch if ch.isprintable() else " " for ch in text)


def end_with_the_pipe() -> None:
    """Lets a reader that has seen enough, such as ``head``, end a listing without a word."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def plural(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
