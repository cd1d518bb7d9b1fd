"""The table of jobs that ``orchestrator history`` prints, fitted to the width of the terminal."""

import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.cli.formatting import colour, printable

if TYPE_CHECKING:
    from orchestrator.reporting.history import Job

_GAP = "  "
_INDENT = 8 * " "


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of the table.

    Args:
        width: in characters; at a terminal longer values are cut.
    """

    title: str
    width: int
    value: Callable[["Job"], str]
    align_right: bool = False


class JobTable:
    """The table of jobs; columns that do not fit are left out, the least important one first.

    Args:
        width: of the terminal, in characters; ``None`` prints all columns in full, as for a pipe.
    """

    def __init__(self, width: int | None) -> None:
        self._width = width
        self._columns = _fitting_columns(width)

    @classmethod
    def for_stdout(cls) -> "JobTable":
        """Return a table for the terminal or pipe that stdout is."""
        return cls(shutil.get_terminal_size().columns if sys.stdout.isatty() else None)

    def heading(self) -> str:
        """Return the line of column titles."""
        cells = [_aligned(column, column.title) for column in self._columns]
        return _GAP.join(cells).rstrip()

    def row(self, job: "Job") -> str:
        """Return a job as one line; an error that does not fit is wrapped on lines below it."""
        cells = [self._cell(column, job) for column in self._columns]
        line = _GAP.join(cells).rstrip()
        if job.code is None:
            return line
        error = printable(f"{job.code}: {job.remedy or job.message or ''}")
        if self._width is None:
            return f"{line}{_GAP}{error}"
        below = textwrap.wrap(error, max(20, self._width - len(_INDENT)))
        return "\n".join([line, *(_INDENT + part for part in below)])

    def _cell(self, column: _Column, job: "Job") -> str:
        text = printable(column.value(job))
        if self._width is not None and len(text) > column.width:
            text = text[: column.width - 1] + "…"
        text = _aligned(column, text)
        return colour(text, job.state) if column.title == "state" else text


def _aligned(column: _Column, text: str) -> str:
    return text.rjust(column.width) if column.align_right else text.ljust(column.width)


def _fitting_columns(width: int | None) -> Sequence[_Column]:
    columns = list(_COLUMNS)
    if width is None:
        return columns
    for title in _DROPPED_FIRST:
        if _total_width(columns) <= width:
            break
        columns = [column for column in columns if column.title != title]
    if columns[-1].title == "result":  # the last column takes the rest of the line
        spare = width - _total_width(columns)
        columns[-1] = replace(columns[-1], width=columns[-1].width + spare)
    return columns


def _total_width(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)


def _images(job: "Job") -> str:
    more = f" +{len(job.image_ids) - 1}" if len(job.image_ids) > 1 else ""
    return f"{job.image_ids[0]}{more}"


def _size(job: "Job") -> str:
    return str(job.size_gib) if job.size_gib else "-"


def _duration(job: "Job") -> str:
    """Return the time from sending to the end, such as ``45s``, ``3m05s`` or ``2h10m``."""
    # An export that was found in the bucket after its response was lost counts as accepted only
    # from then on, so the time of sending comes first.
    started: datetime | None = job.sent_at or job.accepted_at
    if started is None or job.finished_at is None:
        return "-"
    seconds = round((job.finished_at - started).total_seconds())
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"


def _updated(job: "Job") -> str:
    latest = job.finished_at or job.accepted_at or job.sent_at or job.created_at
    return f"{latest:%Y-%m-%d %H:%M}"


def _result(job: "Job") -> str:
    if job.code is not None:
        return ""
    more = f" +{len(job.cos_paths) - 1}" if len(job.cos_paths) > 1 else ""
    return f"{job.cos_paths[0]}{more}" if job.cos_paths else job.reason


_COLUMNS = (
    _Column("job", 5, lambda job: str(job.id), align_right=True),
    _Column("state", 9, lambda job: job.state),
    _Column("batch", 20, lambda job: job.batch),
    _Column("image", 15, _images),
    _Column("region", 14, lambda job: job.region),
    _Column("GiB", 5, _size, align_right=True),
    _Column("duration", 8, _duration, align_right=True),
    _Column("task", 10, lambda job: str(job.task_id or "-"), align_right=True),
    _Column("updated (UTC)", 16, _updated),
    _Column("result", 20, _result),
)

_DROPPED_FIRST = ("result", "task", "updated (UTC)", "region", "batch", "duration", "GiB")
"""At 140 columns all fit; at 80 the first four are left out."""
