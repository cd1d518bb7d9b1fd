"""``orchestrator history``: list jobs, newest first."""

import csv
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

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
async def command(
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
    async with Orchestrator(settings=settings, create=False) as orchestrator:
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
    if is_table and shown == 0:
        print("No job matches.", file=sys.stderr)
    elif is_table and shown == limit:
        print(f"Showing the newest {shown}; use --limit 0 for all.", file=sys.stderr)
