"""``orchestrator run``: send, wait and verify until the queue is empty."""

import gc
import math
import resource
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from orchestrator.cli.exit_codes import INTERNAL, INTERRUPTED, exit_code_for, exit_code_of_run
from orchestrator.cli.formatting import duration, printable, text_width, to_json, wrapped
from orchestrator.cli.options import PROFILE, Batch, Json, option, takes_settings
from orchestrator.cli.standard_streams import silence
from orchestrator.errors import UsageError
from orchestrator.job_states import JobState
from orchestrator.wording import plural

if TYPE_CHECKING:
    from orchestrator.cli.progress import ProgressDisplay
    from orchestrator.reporting.run_summary import RunResult
    from orchestrator.settings import Settings

_YEAR_SECONDS = 365 * 86_400.0

_OTHER_FILES = 64
"""Open files besides the connections to CVM: connections to COS, the database, libraries."""

_MIN_FILES = 40
"""With fewer open files a run could wait for files that it holds itself."""

_GC_THRESHOLD = 10_000
"""Allocations between garbage collections. A request makes hundreds of objects, but hardly a
reference cycle; with Python's default a run spends a twentieth of its time on collections."""

_SETTINGS = (
    option("rate", str, "Requests per second; 0 is no limit.", "N"),
    option("concurrency", str, "Maximum requests in flight.", "N"),
    option("verify", str, "Verify exports in the bucket: auto, required or off."),
    option("verify_interval", str, "Seconds between checks of an export, or adaptive.", "S"),
    option("request_timeout", str, "Timeout of one request.", "S"),
    option(
        "resend_after",
        str,
        "Seconds of empty look-ups before an unknown job is resent.",
        "S",
    ),
    option("resend", str, "When to resend an unknown job: proven, always or never."),
    option("quota_wait", str, "Seconds to wait for a quota other than the export cap.", "S"),
    option("export_deadline", str, "Maximum seconds of an accepted export.", "S"),
    option("max_attempts", str, "Attempts before a job fails.", "N"),
    option("site", str, "Tencent Cloud site: intl or mainland."),
    option("allow_network_store", bool, "Accept a SQLite file on a network file system."),
    option("allow_plain_http", bool, "Allow http:// endpoints beyond loopback."),
    option("cvm_endpoint", str, "CVM endpoint.", "URL"),
    option("cos_endpoint", str, "COS endpoint.", "URL"),
    option("sts_endpoint", str, "STS endpoint.", "URL"),
    option("metadata_endpoint", str, "Instance metadata endpoint.", "URL"),
    PROFILE,
)
"""The settings that the command takes as options. Their values are text, as in the environment, so
that all places have the same rules and messages."""


@takes_settings(*_SETTINGS)
async def command(
    *,
    batch: Batch = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="S", help="Send nothing more after S seconds.")
    ] = None,
    forever: Annotated[
        bool, typer.Option("--forever", help="Wait for new jobs instead of exiting.")
    ] = False,
    json: Json = False,
    settings: "Settings",
) -> None:
    """Send, wait and verify until no job can progress.

    It continues what an earlier run left.

    Exit codes: 0 success, or nothing to do; 1 internal error; 2 invalid input; 3 some jobs failed;
    4 some are unknown; 5 work is left, run again; 6 action required; 10 time limit reached; 130 or
    143 interrupted, work is safe.

    Example: orchestrator run --batch tonight --time-limit 28800
    """
    from orchestrator.cli.progress import ProgressDisplay
    from orchestrator.database_url import describe_url
    from orchestrator.orchestrator import Orchestrator

    seconds = None if time_limit is None else _parse_time_limit(time_limit)
    display = ProgressDisplay(batch)
    display.notify(f"Database: {describe_url(settings.sqlalchemy_url)}")
    _raise_file_limit(settings.concurrency + _OTHER_FILES, display)
    gc.set_threshold(_GC_THRESHOLD)
    result: RunResult | None = None
    stop, interrupted_code = anyio.Event(), 0

    async def stop_on_signal(scope: anyio.CancelScope) -> None:
        """End the run gracefully on the first signal, immediately on the second."""
        nonlocal interrupted_code
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            async for number in received:
                if stop.is_set():
                    display.notify(
                        "Stopped immediately; the next run looks up the requests that were in "
                        "flight."
                    )
                    scope.cancel()
                else:
                    interrupted_code = INTERRUPTED + number
                    display.notify(
                        "Stopping: nothing more is sent; waiting for requests in flight. Interrupt "
                        "again to stop immediately."
                    )
                    stop.set()

    try:
        async with (
            Orchestrator(settings=settings, notify=display.notify) as orchestrator,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(stop_on_signal, tasks.cancel_scope)
            tasks.start_soon(display.show, orchestrator)
            result = await orchestrator.run(
                batch=batch, time_limit=seconds, forever=forever, stop=stop
            )
            tasks.cancel_scope.cancel()
    except Exception as error:
        if not interrupted_code:
            raise
        exit_code_for(error)
    if result is not None:
        try:
            print(to_json(_as_json(result)) if json else _summary_text(result), flush=True)
        except OSError as error:  # stdout is closed or full: the exit code has the same meaning
            if not isinstance(error, BrokenPipeError):
                display.notify(f"The summary cannot be written to stdout: {error.strerror}.")
            silence(sys.stdout)
    code = INTERNAL if result is None else exit_code_of_run(result)
    raise typer.Exit(interrupted_code or code)


def _parse_time_limit(text: str) -> float:
    """Return the value of --time-limit in seconds.

    Raises:
        UsageError: not a number of seconds, or more than a year.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _YEAR_SECONDS:  # not true of NaN either
        raise UsageError(
            f"--time-limit {text!r}: must be a number of seconds, at most one year.",
            "For example, 28800 is 8 hours.",
        )
    return seconds


def _raise_file_limit(needed: int, display: "ProgressDisplay") -> None:
    """Raise this process's limit of open files as far as the system permits.

    Raises:
        UsageError: the limit is too low for any run.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if resource.RLIM_INFINITY != soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < _MIN_FILES:
        raise UsageError(
            f"The hard limit of open files is {allowed}; a run needs at least {_MIN_FILES}.",
            f"As root, raise the hard limit (ulimit -Hn) to {needed} or more, then run again.",
        )
    if allowed < needed:
        display.notify(
            f"Warning: the hard limit of open files is {allowed}, and this run may need {needed}. "
            f"Lower --concurrency, or raise the hard limit (ulimit -Hn) to {needed} as root."
        )


def _as_json(result: "RunResult") -> dict[str, Any]:
    """Return the result as ``run --json`` prints it."""
    from orchestrator.limits.halted_scopes import halted_kind

    states = ("verified", "accepted", "failed", "unknown", "cancelled", "queued", "sending")
    return {
        **{name: result.counts[JobState(name)] for name in states},
        "requests": result.requests,
        "refused": result.refused,
        "seconds": round(result.seconds, 3),
        "halts": [
            {
                "scope": halted_kind(halt),
                "name": halt.value,
                "code": halt.code,
                "message": halt.message,
                "remedy": halt.remedy,
            }
            for halt in result.blocked
            if not halt.is_temporary
        ],
    }


def _summary_text(result: "RunResult") -> str:
    """Return the summary; at a terminal its lines are broken between words."""
    lines = list(summary(result))
    if sys.stdout.isatty():
        lines = [part for line in lines for part in wrapped(line, text_width(), indent="  ")]
    return "\n".join(lines)


def summary(result: "RunResult") -> Iterator[str]:
    """Yield the result as lines of text: counts, halted scopes, and what to do next."""
    total = sum(result.counts.values())
    if not total:
        yield "Nothing to do."
        return
    counts = ", ".join(f"{count} {state}" for state, count in result.counts.items() if count)
    limit = ", the time limit" if result.timed_out else ""
    yield f"{counts} of {total} in {duration(result.seconds)}{limit}."
    requests = plural(result.requests, "request")
    yield f"{requests} sent, {result.refused} of them refused for rate or capacity."
    yield from _causes(result)
    if result.counts[JobState.FAILED]:
        yield "Failed jobs with their remedies: orchestrator history --state failed"
    if result.counts[JobState.UNKNOWN]:
        yield "Unknown jobs: orchestrator history --state unknown, then orchestrator show JOB"
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


def _causes(result: "RunResult") -> Iterator[str]:
    """Yield why work is left: halted scopes, and the warnings that still hold."""
    from orchestrator.limits.halted_scopes import describe_halt

    for halt in result.blocked:
        label = "Given up for now" if halt.is_temporary else "Action required"
        yield f"{label}: {printable(describe_halt(halt))}"
    if result.left:
        for message in result.warnings:
            yield f"Warning: {printable(message)}"
