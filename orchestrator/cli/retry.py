"""``orchestrator retry``: retry failed and cancelled jobs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.cli import options
from orchestrator.cli.formatting import plural
from orchestrator.cli.store_session import apply_to_matching

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.operations import RetryResult
    from orchestrator.settings import Settings


@options.takes_filter
@options.takes_settings()
def command(
    *,
    wanted: "JobFilter",
    all_: options.All = False,
    dry_run: options.DryRun = False,
    settings: "Settings",
) -> None:
    """Retry failed and cancelled jobs.

    The next `orchestrator run` sends them. If an export of a job may exist, the bucket is searched
    before the job is sent.

    Example: orchestrator retry --batch tonight --state failed
    """
    from orchestrator.orchestrator import Orchestrator

    done = apply_to_matching(
        settings, wanted, Orchestrator.retry, _describe, all_=all_, dry_run=dry_run
    )
    if done:
        print(f"{plural(done.changed, 'job')} will be retried by `orchestrator run`.")


def _describe(result: "RetryResult") -> Iterator[str]:
    if result.queued:
        yield f"  {result.queued} back to the queue: no export was started."
    if result.unknown:
        yield f"  {result.unknown} to be searched in the bucket first: an export may exist."
    if result.split:
        yield f"  {result.split} delivered in part: the missing images become a new job."
    if result.skipped:
        yield f"  {result.skipped} skipped: not failed or cancelled, or split before."
