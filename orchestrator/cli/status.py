"""``orchestrator status``: how things stand."""

import sys
from typing import TYPE_CHECKING, Any

import anyio

from orchestrator.cli.formatting import colour, duration, end_with_the_pipe, to_json
from orchestrator.cli.options import Batch, Config, DatabaseUrl, Json, settings_from
from orchestrator.clock import iso

if TYPE_CHECKING:
    from orchestrator.reporting.status import ScopeStatus, Status
    from orchestrator.settings import Settings


def command(
    batch: Batch = None,
    json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
) -> None:
    """Count the jobs in each state, and show what each scope waits for."""
    from orchestrator.store import describe_url

    end_with_the_pipe()
    settings = settings_from(config=config, database_url=database_url)
    found = anyio.run(_status, settings, batch)
    if json:
        print(to_json(_as_json(found)))
        return
    print(f"Store: {describe_url(settings.sqlalchemy_url)}", file=sys.stderr)
    for line in lines(found):
        print(line)


async def _status(settings: "Settings", batch: str | None) -> "Status":
    from orchestrator.orchestrator import Orchestrator

    async with Orchestrator(settings=settings, create=False) as orchestrator:
        return await orchestrator.status(batch=batch)


def _as_json(found: "Status") -> dict[str, Any]:
    return {
        **{str(state): count for state, count in found.counts.items()},
        "reasons": dict(found.reasons),
        "seconds_left": found.seconds_left,
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
            for scope in found.scopes
        ],
    }


def lines(found: "Status") -> list[str]:
    """The status in a few lines for eyes."""
    counts = "  ".join(
        colour(f"{state} {count}", state) for state, count in found.counts.items() if count
    )
    if not found.total:
        return ["No jobs."]
    shown = [counts]
    if found.reasons:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.reasons.items())
        shown.append(f"waiting: {reasons}")
    shown += [
        scope_line(scope) for scope in found.scopes if scope.waiting or scope.concurrency.running
    ]
    if found.rests_until is not None:
        shown.append(f"nothing is due before {iso(found.rests_until)}")
    elif found.seconds_left:
        shown.append(f"time to expect: about {duration(found.seconds_left)}")
    return shown


def scope_line(scope: "ScopeStatus") -> str:
    """One scope: its gate, and what it waits for."""
    concurrency = scope.concurrency
    places = (
        f"{concurrency.running}/{concurrency.ceiling}"
        if concurrency.ceiling is not None
        else f"{concurrency.running}"
    )
    line = f"{scope.profile} {concurrency.region}: gate {places} under way, {scope.waiting} waiting"
    if concurrency.full_since is not None and not concurrency.has_free_slot:
        line += f", full since {concurrency.full_since:%H:%M:%SZ}"
        if concurrency.probe_at is not None:
            line += f", next probe {concurrency.probe_at:%H:%M:%SZ}"
    if concurrency.running and scope.seconds_left == 0 and scope.usual_seconds is not None:
        line += f", not seen to end in the usual {duration(scope.usual_seconds)}"
    return line
