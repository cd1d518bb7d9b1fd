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
                "region": scope.gate.region,
                "ceiling": scope.gate.ceiling,
                "running": scope.gate.running,
                "waiting": scope.waiting,
                "full_since": scope.gate.full_since,
                "next_probe": scope.gate.probe_at if scope.gate.full_since else None,
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
        waits = ", ".join(f"{count} {reason}" for reason, count in found.reasons.items())
        shown.append(f"waiting: {waits}")
    shown += [scope_line(scope) for scope in found.scopes if scope.waiting or scope.gate.running]
    if found.rests_until is not None:
        shown.append(f"nothing is due before {iso(found.rests_until)}")
    elif found.seconds_left:
        shown.append(f"time to expect: about {duration(found.seconds_left)}")
    return shown


def scope_line(scope: "ScopeStatus") -> str:
    """One scope: its gate, and what it waits for."""
    gate = scope.gate
    places = f"{gate.running}/{gate.ceiling}" if gate.ceiling is not None else f"{gate.running}"
    line = f"{scope.profile} {gate.region}: gate {places} under way, {scope.waiting} waiting"
    if gate.full_since is not None and not gate.has_room:
        line += f", full since {gate.full_since:%H:%M:%SZ}"
        if gate.probe_at is not None:
            line += f", next probe {gate.probe_at:%H:%M:%SZ}"
    if gate.running and scope.seconds_left == 0 and scope.usual_seconds is not None:
        line += f", not seen to end in the usual {duration(scope.usual_seconds)}"
    return line
