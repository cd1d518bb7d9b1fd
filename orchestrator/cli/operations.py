"""``orchestrator retry``, ``cancel`` and ``resolve``: what an operator does to jobs."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from orchestrator.cli.formatting import duration
from orchestrator.cli.options import FILTERS, job_filter, option, replaces, takes_settings
from orchestrator.errors import UsageError
from orchestrator.wording import plural

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.operations import CancelResult, RetryResult, Verdict
    from orchestrator.settings import Settings

_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done without doing it.")
]


def _filter_or_all(**values: Any) -> "JobFilter":
    """Return the filter of the options; it may be empty only with ``--all``."""
    from orchestrator.model import JobFilter

    are_all_allowed = values.pop("all")
    wanted = job_filter(**values)
    if wanted == JobFilter() and not are_all_allowed:
        raise UsageError("No filter given.", "Add one, such as --batch NAME, or use --all.")
    return wanted


_ALL = option("all", bool, "Select all jobs; no filter is needed.", default=False)
_takes_filter_or_all = replaces("wanted", (*FILTERS, _ALL), _filter_or_all)


@_takes_filter_or_all
@takes_settings()
async def retry(*, wanted: "JobFilter", dry_run: _DryRun = False, settings: "Settings") -> None:
    """Retry failed and cancelled jobs.

    The next `orchestrator run` searches the bucket for each job that was sent before, and sends
    the job if nothing is found. If an export may exist, it searches for as long as `resend_after`.

    Example: orchestrator retry --batch tonight --state failed
    """
    from orchestrator.orchestrator import Orchestrator

    async with Orchestrator(settings=settings, create=False) as orchestrator:
        preview = await orchestrator.retry(wanted, dry_run=True)
        parts = {
            "back to the queue: never sent, or refused": preview.queued,
            "to be searched in the bucket first: an export may exist": preview.unknown,
            "delivered in part: the missing images become a new job": preview.split,
            "skipped: split before, or not failed or cancelled (for unknown jobs use "
            "`orchestrator resolve`)": preview.skipped,
        }
        if _print_preview(preview, parts, dry_run=dry_run):
            done = await orchestrator.retry(wanted)
            print(f"{plural(done.changed, 'job')} will be retried by `orchestrator run`.")


@_takes_filter_or_all
@takes_settings()
async def cancel(*, wanted: "JobFilter", dry_run: _DryRun = False, settings: "Settings") -> None:
    """Cancel queued jobs. An export that was requested cannot be called back.

    `orchestrator retry` puts cancelled jobs back in the queue.

    Example: orchestrator cancel --batch tonight --region ap-tokyo --dry-run
    """
    from orchestrator.orchestrator import Orchestrator

    async with Orchestrator(settings=settings, create=False) as orchestrator:
        preview = await orchestrator.cancel(wanted, dry_run=True)
        parts = {
            "queued: cancel": preview.changed,
            "of them sent before, but not found in the bucket": preview.maybe_applied,
            "skipped: not queued": preview.skipped,
        }
        if _print_preview(preview, parts, dry_run=dry_run):
            done = await orchestrator.cancel(wanted)
            count = plural(done.changed, "job")
            print(f"{count} cancelled. Use `orchestrator retry` to undo this.")


def _print_preview(
    preview: "CancelResult | RetryResult", parts: dict[str, int], *, dry_run: bool
) -> bool:
    """Print what an operation would do; return whether to do it."""
    matching = preview.changed + preview.skipped
    if not matching:
        print("No job matches. `orchestrator history` lists the jobs.", file=sys.stderr)
        return False
    verb = "matches" if matching == 1 else "match"
    lines = [f"  {count} {what}." for what, count in parts.items() if count]
    out = sys.stdout if dry_run else sys.stderr
    print(f"{plural(matching, 'job')} {verb}.", *lines, sep="\n", file=out)
    return not dry_run and preview.changed > 0


@takes_settings()
async def resolve(
    *,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Job id or tag.")],
    verdict: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="accepted|absent",
            help="accepted: the export is running or has run. absent: it never began.",
        ),
    ],
    why: Annotated[
        str, typer.Option(metavar="TEXT", help="Your evidence; stored in the job's events.")
    ],
    settings: "Settings",
) -> None:
    """Resolve an unknown job: state whether its export began.

    `orchestrator show JOB` says what to check first. A job resolved as absent is sent again by the
    next run; if its export exists after all, the image is exported twice.

    Example: orchestrator resolve 17 --as absent --why 'no task in console'
    """
    from orchestrator.orchestrator import Orchestrator

    if not why.strip():
        raise UsageError("--why is empty.", "Describe what you have seen: it is the only evidence.")
    async with Orchestrator(settings=settings, create=False) as orchestrator:
        # resolve itself refuses other words
        job_id = await orchestrator.resolve(job, cast("Verdict", verdict), why=why)
    if verdict == "accepted":
        deadline = duration(settings.export_deadline.total_seconds())
        print(
            f"Job {job_id} is now accepted; `orchestrator run` waits for its objects, at most the "
            f"export_deadline ({deadline} here)."
        )
    else:
        print(f"Job {job_id} is queued again; `orchestrator run` sends it.")


def settle() -> None:
    """Explain that `settle` is now called `resolve`."""
    raise UsageError(
        "The command `settle` is now `orchestrator resolve JOB --as accepted|absent --why TEXT`."
    )
