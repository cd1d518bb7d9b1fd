"""``orchestrator history``: the jobs, newest first."""

import csv
import sys
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli import options
from orchestrator.cli.formatting import (
    JOB_FIELDS,
    csv_cells,
    end_with_the_pipe,
    heading_of_jobs,
    job_fields,
    job_line,
    to_json,
)
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.settings import Settings

_SCREENFUL = 50


@options.takes_filter
def command(
    wanted: "JobFilter",
    limit: Annotated[
        int | None, typer.Option(min=0, help="At most so many; 0 is all (50 on a terminal).")
    ] = None,
    json: options.Json = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    database_url: options.DatabaseUrl = None,
    config: options.Config = None,
) -> None:
    """List jobs, newest first. A value may hold *, and repeated values mean "or"."""
    end_with_the_pipe()
    if json and csv_:
        raise UsageError("--json and --csv exclude each other.", "Choose one.")
    settings = options.settings_from(config=config, database_url=database_url)
    for_eyes = not json and not csv_ and sys.stdout.isatty()
    most = _SCREENFUL if limit is None and for_eyes else (limit or None)
    form = "json" if json else "csv" if csv_ else "lines"
    shown = anyio.run(_print, settings, wanted, most, form)
    if form == "lines" and shown == 0:
        print("No job matches.", file=sys.stderr)
    elif form == "lines" and shown == most:
        print(f"The newest {shown}; --limit 0 shows all.", file=sys.stderr)


async def _print(settings: "Settings", wanted: "JobFilter", limit: int | None, form: str) -> int:
    from orchestrator.orchestrator import Orchestrator

    shown = 0
    table = csv.writer(sys.stdout, lineterminator="\n")
    async with Orchestrator(settings=settings, create=False) as orchestrator:
        if form == "csv":
            table.writerow(JOB_FIELDS)
        async for job in orchestrator.history(wanted, limit=limit):
            if form == "json":
                print(to_json(job_fields(job)))
            elif form == "csv":
                table.writerow(csv_cells(job))
            else:
                if shown == 0:
                    print(heading_of_jobs())
                print(job_line(job))
            shown += 1
    return shown
