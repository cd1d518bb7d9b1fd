"""``orchestrator retry``: another try for jobs that failed or were cancelled."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.cli import bulk_operations as by_filter
from orchestrator.cli import options
from orchestrator.cli.formatting import plural

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.operations.retry import Retry


@options.takes_filter
def command(
    wanted: "JobFilter",
    all_: by_filter.All = False,
    dry_run: by_filter.DryRun = False,
    database_url: options.DatabaseUrl = None,
    config: options.Config = None,
) -> None:
    """Try failed and cancelled jobs again: the next run sends them.

    What may have left an export behind is looked for in the bucket first.
    """
    from orchestrator.orchestrator import Orchestrator

    settings = options.settings_from(config=config, database_url=database_url)
    act = Orchestrator.retry
    done = by_filter.decide(settings, wanted, act, _lines, all_=all_, dry_run=dry_run)
    if done:
        print(f"{plural(done.changed, 'job')} tried again; `orchestrator run` goes on with them.")


def _lines(tried: "Retry") -> Iterator[str]:
    if tried.queued:
        yield f"  {tried.queued} back to the queue: nothing was left behind."
    if tried.unknown:
        yield f"  {tried.unknown} to be looked for first: an export may be there."
    if tried.parts:
        yield f"  {tried.parts} delivered in part: the missing images become a job of their own."
    if tried.untouched:
        yield f"  {tried.untouched} left alone: not failed or cancelled, or tried again already."
