"""``orchestrator retry``: another try for jobs that failed or were cancelled."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli import options
from orchestrator.cli.output import plural
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.settings import Settings
    from orchestrator.settle.operate import Retry


@options.takes_filter
def command(
    wanted: "JobFilter",
    all_: Annotated[bool, typer.Option("--all", help="All jobs, without a filter.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would become of them; change nothing.")
    ] = False,
    database_url: options.DatabaseUrl = None,
    config: options.Config = None,
) -> None:
    """Try failed and cancelled jobs again: the next run sends them.

    What may have left an export behind is looked for in the bucket first.
    """
    from orchestrator.model import JobFilter

    if wanted == JobFilter() and not all_:
        raise UsageError("No filter is given.", "Narrow it, as with --batch, or say --all.")
    settings = options.settings_from(config=config, database_url=database_url)
    preview = anyio.run(_retry, settings, wanted, True)
    if not _count(preview) + preview.untouched:
        raise UsageError("No job matches.", "`orchestrator history` lists the jobs.")
    for line in _lines(preview):
        print(line, file=sys.stdout if dry_run else sys.stderr)
    if dry_run or not _count(preview):
        return
    done = anyio.run(_retry, settings, wanted, False)
    print(f"{plural(_count(done), 'job')} tried again; `orchestrator run` goes on with them.")


async def _retry(settings: "Settings", wanted: "JobFilter", dry_run: bool) -> "Retry":
    from orchestrator.app import Orchestrator

    async with Orchestrator(settings=settings, create=False) as orchestrator:
        return await orchestrator.retry(wanted, dry_run=dry_run)


def _count(tried: "Retry") -> int:
    return tried.queued + tried.unknown + tried.parts


def _lines(tried: "Retry") -> Iterator[str]:
    """What becomes of the jobs, for eyes."""
    matching = _count(tried) + tried.untouched
    yield "1 job matches." if matching == 1 else f"{matching} jobs match."
    if tried.queued:
        yield f"  {tried.queued} back to the queue: nothing was left behind."
    if tried.unknown:
        yield f"  {tried.unknown} to be looked for first: an export may be there."
    if tried.parts:
        yield f"  {tried.parts} delivered in part: the missing images become a job of their own."
    if tried.untouched:
        yield f"  {tried.untouched} left alone: not failed or cancelled, or tried again already."
