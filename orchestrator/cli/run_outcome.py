"""What came of a run: for eyes, as JSON, and as an exit code."""

import sys
from typing import TYPE_CHECKING, Any

from orchestrator.cli.exit_codes import A_PERSON_MUST_ACT
from orchestrator.cli.formatting import duration, plural, printable
from orchestrator.cli.standard_streams import silence

if TYPE_CHECKING:
    from orchestrator.reporting.run_summary import RunResult


def as_json(result: "RunResult") -> dict[str, Any]:
    """The result as `--json` prints it."""
    from orchestrator.job_states import JobState

    shown = ("verified", "accepted", "failed", "unknown", "cancelled", "queued", "sending")
    return {
        **{name: result.counts[JobState(name)] for name in shown},
        "requests": result.requests,
        "refused": result.refused,
        "seconds": round(result.seconds, 3),
    }


def summary(result: "RunResult", batch: str | None = None) -> list[str]:
    """The result in a few lines for eyes."""
    from orchestrator.limits.admission import describe_halt

    total = sum(result.counts.values())
    if not total:
        return [
            "Nothing to do." if batch is None else f"Nothing to do: no job has batch {batch!r}."
        ]
    counts = ", ".join(f"{count} {state}" for state, count in result.counts.items() if count)
    sent = f"{plural(result.requests, 'request')}, {result.refused} refused for rate or capacity"
    ended = ", its time limit" if result.timed_out else ""
    lines = [f"{counts} of {total} in {duration(result.seconds)}{ended}; {sent}."]
    lines += [
        f"{'Given up for now' if stop.passes else 'To mend'}: {printable(describe_halt(stop))}"
        for stop in result.blocked
    ]
    lines += [advice for holds, advice in _advice(result) if holds]
    return lines


def _advice(result: "RunResult") -> list[tuple[bool, str]]:
    from orchestrator.job_states import JobState

    counts = result.counts
    must_act = any(not stop.passes for stop in result.blocked)
    how = "mend that and run again" if must_act else "run again to go on"
    if result.blocked and counts[JobState.QUEUED]:
        how += ", or cancel what is queued"
    undecided = (
        f"Not sent again by itself: {plural(result.not_ruled_out, 'job')}, of which the bucket "
        "neither shows nor rules out an export; decide with: orchestrator settle"
    )
    return [
        (bool(counts[JobState.FAILED]), "What failed and why: orchestrator history --state failed"),
        (
            bool(counts[JobState.UNKNOWN]),
            "What is unknown: orchestrator history --state unknown, and show JOB for one",
        ),
        (result.not_ruled_out > 0, undecided),
        (
            result.warned > 0,
            f"{plural(result.warned, 'job')} with a warning: orchestrator show JOB",
        ),
        (result.left > 0, f"{plural(result.left, 'job')} left: {how}."),
    ]


def exit_code(result: "RunResult") -> int:
    """The exit code of a run that nobody interrupted: the first that applies."""
    from orchestrator.job_states import JobState

    codes = [
        (any(not stop.passes for stop in result.blocked) and result.left > 0, A_PERSON_MUST_ACT),
        (result.timed_out and result.left > 0, 10),
        (result.left > 0, 5),
        (result.counts[JobState.UNKNOWN] > 0, 4),
        (result.counts[JobState.FAILED] > 0, 3),
    ]
    return next((code for holds, code in codes if holds), 0)


def print_result(text: str) -> None:
    """Prints the result, if anybody still listens: the exit code tells it too."""
    try:
        print(text, flush=True)
    except OSError:
        silence(sys.stdout)
