"""``orchestrator cancel``: gives up jobs that wait in the queue."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.cli import bulk_operations as by_filter
from orchestrator.cli import options
from orchestrator.cli.formatting import plural

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.operations.cancel import Cancel


@options.takes_filter
def command(
    wanted: "JobFilter",
    all_: by_filter.All = False,
    dry_run: by_filter.DryRun = False,
    database_url: options.DatabaseUrl = None,
    config: options.Config = None,
) -> None:
    """Give up queued jobs; an export that was asked for cannot be called back.

    `orchestrator retry` takes cancelled jobs up again.
    """
    from orchestrator.orchestrator import Orchestrator

    settings = options.settings_from(config=config, database_url=database_url)
    act = Orchestrator.cancel
    done = by_filter.decide(settings, wanted, act, _lines, all_=all_, dry_run=dry_run)
    if done:
        print(f"{plural(done.changed, 'job')} cancelled; `orchestrator retry` takes them up again.")


def _lines(given_up: "Cancel") -> Iterator[str]:
    if given_up.changed:
        yield f"  {given_up.changed} in the queue: cancelled."
    if given_up.maybe_applied:
        yield f"  {given_up.maybe_applied} of them sent before, to no effect that was found."
    if given_up.untouched:
        yield f"  {given_up.untouched} left alone: sent already, or ended."
