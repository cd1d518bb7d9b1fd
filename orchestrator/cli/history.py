"""``orchestrator history``: list jobs, newest first, in a table fitted to the terminal."""

import csv
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.formatting import (
    colour,
    csv_cells,
    duration,
    exit_on_closed_pipe,
    job_columns,
    job_fields,
    printable,
    to_json,
    wrapped,
)
from orchestrator.cli.options import (
    FILTERS,
    Json,
    job_filter,
    lists_nothing_without_store,
    replaces,
    takes_settings,
)
from orchestrator.cli.standard_streams import use_utf8
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.reporting.history import Job
    from orchestrator.settings import Settings

_TERMINAL_LIMIT = 50

_GAP = "  "
_INDENT = 8 * " "

_WIDTHS = {
    "job": 5,
    "state": 9,
    "batch": 20,
    "image": 15,
    "region": 14,
    "GiB": 5,
    "duration": 8,
    "task": 10,
    "updated (UTC)": 16,
    "result": 20,
}
"""The columns in their order, with their widths as a terminal counts them."""

_ALIGNED_RIGHT = {"job", "GiB", "duration", "task"}

_DROPPED_FIRST = ("result", "task", "updated (UTC)", "region", "batch", "duration", "GiB")
"""At 140 columns all fit; at 80 the first four are left out."""


@replaces("wanted", FILTERS, job_filter)
@takes_settings()
@lists_nothing_without_store
async def command(
    *,
    wanted: "JobFilter",
    limit: Annotated[
        int | None, typer.Option(min=0, help="Maximum number of jobs; 0 is all.")
    ] = None,
    json: Json = False,
    csv_: Annotated[bool, typer.Option("--csv", callback=use_utf8, help="Print CSV.")] = False,
    settings: "Settings",
) -> None:
    """List jobs, newest first.

    A terminal gets the newest 50, unless --limit is given. Filter values may contain *. A repeated
    option matches any of its values.

    Example: orchestrator history --state failed --since 2026-11-23
    """
    from orchestrator.orchestrator import Orchestrator

    exit_on_closed_pipe()
    if json and csv_:
        raise UsageError("--json and --csv cannot be combined.", "Use only one of them.")
    is_table = not json and not csv_
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if limit is None and is_table and width is not None:
        limit = _TERMINAL_LIMIT
    shown = 0
    rows = csv.writer(sys.stdout, lineterminator="\n")
    table = JobTable(width)
    async with Orchestrator(settings=settings, read_only=True) as orchestrator:
        if csv_:
            rows.writerow(job_columns())
        # each is printed as soon as it is read, so that memory stays flat
        async for job in orchestrator.history(wanted, limit=limit or None):
            if json:
                print(to_json(job_fields(job)))
            elif csv_:
                rows.writerow(csv_cells(job))
            else:
                if shown == 0:
                    print(table.heading())
                print(table.row(job))
            shown += 1
    if shown == 0:
        print("No job matches.", file=sys.stderr)
    elif is_table and shown == limit:
        print(f"Showing the newest {shown}; use --limit 0 for all.", file=sys.stderr)


class JobTable:
    """The table of jobs, printed row by row; what does not fit is left out or cut.

    Args:
        width: of the terminal; ``None`` prints all columns in full, as for a pipe.
    """

    def __init__(self, width: int | None) -> None:
        self._width = width
        self._widths = dict(_WIDTHS)
        if width is None:
            return
        for title in _DROPPED_FIRST:
            if self._spare(width) >= 0:
                break
            del self._widths[title]
        if "result" in self._widths:  # the last column takes the rest of the line
            self._widths["result"] += self._spare(width)

    def _spare(self, width: int) -> int:
        return width - sum(self._widths.values()) - len(_GAP) * (len(self._widths) - 1)

    def heading(self) -> str:
        """Return the line of column titles."""
        return self._line({title: title for title in _WIDTHS})

    def row(self, job: "Job") -> str:
        """Return a job as one line, with its error.

        If the width of the terminal is known, the error is wrapped on the lines below.
        """
        line = self._line(_cells(job), job.state)
        if job.code is None:
            return line
        error = printable(f"{job.code}: {job.remedy or job.message or ''}")
        if self._width is None:
            return f"{line}{_GAP}{error}"
        below = wrapped(error, max(20, self._width - len(_INDENT)))
        return "\n".join([line, *(_INDENT + part for part in below)])

    def _line(self, cells: Mapping[str, str], state: str = "") -> str:
        from rich.cells import cell_len, set_cell_size  # Chinese characters take two columns

        parts = []
        for title, width in self._widths.items():
            text = printable(cells[title])
            if self._width is not None and cell_len(text) > width:
                mark = "…" if printable("…") == "…" else "~"
                text = set_cell_size(text, width - 1).rstrip() + mark
            blanks = " " * (width - cell_len(text))
            text = blanks + text if title in _ALIGNED_RIGHT else text + blanks
            parts.append(colour(text, state) if title == "state" else text)
        return _GAP.join(parts).rstrip()


def _cells(job: "Job") -> dict[str, str]:
    """Return what a job has in each column; an error is not among it."""
    latest = job.finished_at or job.accepted_at or job.sent_at or job.created_at
    return {
        "job": str(job.id),
        "state": job.state,
        "batch": job.batch,
        "image": _first_of(job.image_ids),
        "region": job.region,
        "GiB": str(job.size_gib or "-"),
        "duration": _duration(job),
        "task": str(job.task_id or "-"),
        "updated (UTC)": f"{latest:%Y-%m-%d %H:%M}",
        "result": "" if job.code is not None else _first_of(job.cos_paths) or job.reason,
    }


def _first_of(values: Sequence[str]) -> str:
    """Return the first value and how many more there are; empty if there is none."""
    return f"{values[0]} +{len(values) - 1}" if len(values) > 1 else "".join(values)


def _duration(job: "Job") -> str:
    """Return the time from sending to end, such as ``45s``, ``3m05s`` or ``2h10m``."""
    # An export that was found in the bucket after its response was lost counts as accepted only
    # from then on, so the time of sending comes first.
    started = job.sent_at or job.accepted_at
    if started is None or job.finished_at is None:
        return "-"
    seconds = (job.finished_at - started).total_seconds()
    return duration(seconds).replace("min", "m").replace(" ", "")
