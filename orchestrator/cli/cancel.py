"""``orchestrator cancel``: cancel queued jobs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.cli import options
from orchestrator.cli.formatting import plural
from orchestrator.cli.store_session import apply_to_matching

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.operations import CancelResult
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
    """Cancel queued jobs. An export that was requested cannot be called back.

    `orchestrator retry` puts cancelled jobs back in the queue.

    Example: orchestrator cancel --batch tonight --region ap-tokyo --dry-run
    """
    from orchestrator.orchestrator import Orchestrator

    done = apply_to_matching(
        settings, wanted, Orchestrator.cancel, _describe, all_=all_, dry_run=dry_run
    )
    if done:
        print(f"{plural(done.changed, 'job')} cancelled. Use `orchestrator retry` to undo this.")


def _describe(result: "CancelResult") -> Iterator[str]:
    if result.changed:
        yield f"  {result.changed} queued: cancel."
    if result.maybe_applied:
        yield f"  {result.maybe_applied} of them sent before, but not found in the bucket."
    if result.skipped:
        yield f"  {result.skipped} skipped: not queued."
