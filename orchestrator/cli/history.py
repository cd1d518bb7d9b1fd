"""``orchestrator history``: list jobs, newest first."""

import csv
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli import options
from orchestrator.cli.formatting import (
    csv_cells,
    exit_on_closed_pipe,
    job_columns,
    job_fields,
    to_json,
)
from orchestrator.cli.job_table import JobTable
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.settings import Settings

_TERMINAL_LIMIT = 50


@options.takes_filter
@options.takes_settings()
def command(
    *,
    wanted: "JobFilter",
    limit: Annotated[
        int | None, typer.Option(min=0, help="Maximum number of jobs; 0 is all.")
    ] = None,
    json: options.Json = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    settings: "Settings",
) -> None:
    """List jobs, newest first.

    A terminal gets the newest 50, unless --limit is given. Filter values may contain *. A repeated
    option matches any of its values.

    Example: orchestrator history --state failed --since 2026-11-23
    """
    exit_on_closed_pipe()
    if json and csv_:
        raise UsageError("--json and --csv cannot be combined.", "Use only one of them.")
    form = "json" if json else "csv" if csv_ else "table"
    if limit is None and form == "table" and sys.stdout.isatty():
        limit = _TERMINAL_LIMIT
    shown = anyio.run(_print, settings, wanted, limit or None, form)
    if form == "table" and shown == 0:
        print("No job matches.", file=sys.stderr)
    elif form == "table" and shown == limit:
        print(f"Showing the newest {shown}; use --limit 0 for all.", file=sys.stderr)


async def _print(settings: "Settings", wanted: "JobFilter", limit: int | None, form: str) -> int:
    """Print each job as soon as it is read, so that memory stays flat; return their number."""
    from orchestrator.orchestrator import Orchestrator

    shown = 0
    rows = csv.writer(sys.stdout, lineterminator="\n")
    table = JobTable(shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    async with Orchestrator(settings=settings, create=False) as orchestrator:
        if form == "csv":
            rows.writerow(job_columns())
        async for job in orchestrator.history(wanted, limit=limit):
            if form == "json":
                print(to_json(job_fields(job)))
            elif form == "csv":
                rows.writerow(csv_cells(job))
            else:
                if shown == 0:
                    print(table.heading())
                print(table.row(job))
            shown += 1
    return shown
