"""``orchestrator status``: counts per state, limits of each scope, ETA, warnings."""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator.cli.formatting import (
    colour,
    duration,
    exit_on_closed_pipe,
    printable,
    text_width,
    to_json,
    wrapped,
)
from orchestrator.cli.options import Batch, Json, lists_nothing_without_store, takes_settings
from orchestrator.clock import iso
from orchestrator.job_states import LIVING
from orchestrator.wording import plural

if TYPE_CHECKING:
    from orchestrator.reporting.status import ScopeStatus, Status
    from orchestrator.settings import Settings


@takes_settings()
@lists_nothing_without_store
async def command(*, batch: Batch = None, json: Json = False, settings: "Settings") -> None:
    """Show counts per state, limits per scope, warnings, and the vendor's behaviour.

    While a run is active, also the ETA and the next probe of a full region. --batch takes one exact
    name, as in run; * is a wildcard in the filters of history, retry and cancel.

    Example: orchestrator status --batch tonight
    """
    from orchestrator.database_url import describe_url
    from orchestrator.orchestrator import Orchestrator

    exit_on_closed_pipe()
    async with Orchestrator(settings=settings, read_only=True) as orchestrator:
        current = await orchestrator.status(batch=batch)
    if json:
        print(to_json(_as_json(current)))
        return
    print(f"Database: {describe_url(settings.sqlalchemy_url)}", file=sys.stderr)
    if not current.total:
        print("No jobs.")
        return
    counts = (colour(f"{state} {count}", state) for state, count in current.counts.items() if count)
    print("  ".join(counts))
    about_run = (eta_text(current), _run_line(current, batch))
    lines = (*about_run, *_vendor_lines(current), *warning_lines(current))
    for line in (*detail_lines(current), *lines):
        for part in wrapped(printable(line), text_width(), indent="  "):
            print(part)


def _as_json(current: "Status") -> dict[str, Any]:
    return {
        **{str(state): count for state, count in current.counts.items()},
        "reasons": dict(current.reasons),
        "run_active": current.is_run_active,
        "seconds_left": current.seconds_left,
        "scopes": [
            {
                "profile": scope.profile,
                "region": scope.concurrency.region,
                "ceiling": scope.concurrency.ceiling,
                "running": scope.concurrency.running,
                "waiting": scope.waiting,
                "full_since": scope.concurrency.full_since,
                "next_probe": scope.concurrency.probe_at if scope.concurrency.full_since else None,
                "usual_seconds": scope.usual_seconds,
                "seconds_left": scope.seconds_left,
            }
            for scope in current.scopes
        ],
        "warnings": [asdict(warning) for warning in current.warnings],
        "vendor": [asdict(learned) for learned in current.vendor],
    }


def _run_line(current: "Status", batch: str | None) -> str:
    """Return that no run is active, and what to do if there is work; else nothing."""
    from orchestrator.model import NOT_RULED_OUT

    if current.is_run_active:
        return ""
    living = sum(current.counts[state] for state in LIVING)
    if not living:
        return "No run is active, and no job waits for one."
    if living == current.reasons.get(NOT_RULED_OUT):
        return (
            "No run is active, and the unknown jobs wait for an operator: "
            "`orchestrator history --state unknown` lists them, `orchestrator show JOB` says what "
            "to check."
        )
    option = "" if batch is None else f" --batch {shlex.quote(batch)}"
    return f"No run is active. Continue with: orchestrator run{option}"


def _vendor_lines(current: "Status") -> Iterator[str]:
    """Yield what is known of each bucket and host."""
    facts: dict[str, list[str]] = {}
    for learned in current.vendor:
        unit = " s" if learned.fact in {"time to first trace", "clock offset"} else ""
        name = f"{learned.profile} {learned.subject}"
        facts.setdefault(name, []).append(f"{learned.fact} {learned.value}{unit}")
    for name, known in facts.items():
        yield f"{name}: {', '.join(known)}"


def warning_lines(current: "Status") -> Iterator[str]:
    """Yield the warnings of the runs in progress, or of the last ones."""
    for warning in current.warnings:
        yield f"Warning since {warning.since:%H:%M:%SZ} ({warning.profile}): {warning.message}"


def waiting_line(current: "Status") -> str:
    """Return how many jobs wait for each reason; empty if none waits."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in current.reasons.items())
    return f"waiting: {reasons}" if reasons else ""


def detail_lines(current: "Status") -> Iterator[str]:
    """Yield why jobs wait, and one line for each active scope.

    A scope is active if it has jobs to send or exports in progress.
    """
    if waiting := waiting_line(current):
        yield waiting
    for scope in current.scopes:
        if scope.waiting or scope.concurrency.running:
            yield scope_line(scope)


def eta_text(current: "Status") -> str:
    """Return when the work may be done, or when it continues; empty if not known."""
    if current.next_due_at is not None:
        return f"nothing is due before {iso(current.next_due_at)}"
    return f"ETA {duration(current.seconds_left)}" if current.seconds_left else ""


def scope_line(scope: "ScopeStatus") -> str:
    """Return the line of one scope.

    It shows the exports in progress, the learned limit, and what the scope waits for.
    """
    concurrency = scope.concurrency
    exports = plural(concurrency.running, "export")
    if concurrency.ceiling is not None:
        exports = f"{concurrency.running} of {plural(concurrency.ceiling, 'export')}"
    line = f"{scope.profile} {concurrency.region}: {exports} in progress, {scope.waiting} queued"
    if concurrency.full_since is not None and not concurrency.has_free_slot:
        line += f", at the limit since {concurrency.full_since:%H:%M:%SZ}"
        if concurrency.probe_at is not None:
            line += f", next probe {concurrency.probe_at:%H:%M:%SZ}"
    if concurrency.running and scope.seconds_left == 0 and scope.usual_seconds is not None:
        line += f", overdue (usually {duration(scope.usual_seconds)})"
    return line
