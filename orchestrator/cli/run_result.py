"""The result of a run, as text and as JSON."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.cli.formatting import duration, plural, printable
from orchestrator.cli.standard_streams import silence
from orchestrator.job_states import JobState

if TYPE_CHECKING:
    from orchestrator.reporting.run_summary import RunResult


def as_json(result: "RunResult") -> dict[str, Any]:
    """Return the result as ``run --json`` prints it."""
    states = ("verified", "accepted", "failed", "unknown", "cancelled", "queued", "sending")
    return {
        **{name: result.counts[JobState(name)] for name in states},
        "requests": result.requests,
        "refused": result.refused,
        "seconds": round(result.seconds, 3),
    }


def summary(result: "RunResult", batch: str | None = None) -> list[str]:
    """Return the result as lines of text: counts, halted scopes, and what to do next."""
    total = sum(result.counts.values())
    if not total:
        return [
            "Nothing to do." if batch is None else f"Nothing to do: no job has batch {batch!r}."
        ]
    return list(_lines(result, total))


def _lines(result: "RunResult", total: int) -> Iterator[str]:
    from orchestrator.limits.admission import describe_halt

    counts = ", ".join(f"{count} {state}" for state, count in result.counts.items() if count)
    limit = ", the time limit" if result.timed_out else ""
    yield (
        f"{counts} of {total} in {duration(result.seconds)}{limit}; "
        f"{plural(result.requests, 'request')}, {result.refused} refused for rate or capacity."
    )
    for halt in result.blocked:
        label = "Given up for now" if halt.is_temporary else "Action required"
        yield f"{label}: {printable(describe_halt(halt))}"
    if result.counts[JobState.FAILED]:
        yield "Failed jobs with their remedies: orchestrator history --state failed"
    if result.counts[JobState.UNKNOWN]:
        yield "Unknown jobs: orchestrator history --state unknown"
    if result.not_ruled_out:
        yield (
            f"Action required: {plural(result.not_ruled_out, 'job')} will not be resent "
            "automatically: the bucket neither shows nor rules out an export. Check with "
            "`orchestrator show JOB`, then use `orchestrator resolve`."
        )
    if result.warned:
        yield f"{plural(result.warned, 'job')} with a warning: orchestrator show JOB"
    if result.left:
        action = "fix the above and run again" if result.needs_action else "run again to continue"
        if result.blocked and result.counts[JobState.QUEUED]:
            action += ", or cancel the queued jobs"
        yield f"{plural(result.left, 'job')} left: {action}."


def print_result(text: str) -> None:
    """Print the result; skip it if stdout is closed: the exit code has the same meaning."""
    try:
        print(text, flush=True)
    except OSError:
        silence(sys.stdout)
