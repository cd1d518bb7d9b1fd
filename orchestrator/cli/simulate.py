"""``orchestrator simulate``: the vendor's cloud on loopback."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli.exit_codes import leaves
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.simulator import Settings, Simulator, SimulatorOptions


def command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Of all that is left to chance.")] = 1,
    images: Annotated[
        int, typer.Option(min=0, help="Images in the catalogue; 0 lets any image exist.")
    ] = 0,
    cap: Annotated[
        int, typer.Option(min=0, help="Exports that run at once per region; 0 is no cap.")
    ] = 10,
    seconds: Annotated[float, typer.Option(min=0, help="How long an export takes.")] = 1.0,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON as in config/scenario.json.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON line for each request.")
    ] = None,
) -> None:
    """Run CVM and COS on loopback, as strict as the vendor, until Ctrl-C.

    GET /_simulator/settings shows everything that can be set, and POST sets it while it runs;
    /_simulator/ledger, /exports and /state tell what happened.
    """
    from orchestrator.simulator import Duration, Settings, SimulatorOptions, serve

    settings = Settings(cap=cap or None, duration=Duration(seconds=seconds))
    if scenario is not None:
        settings = _with_scenario(settings, scenario)
    options = SimulatorOptions(
        port=port, seed=seed, images=images, ledger=ledger, settings=settings
    )
    try:
        anyio.run(serve, options, _ready(options))
    except KeyboardInterrupt:
        print("Simulator stopped.", file=sys.stderr)
    except (OSError, ExceptionGroup) as raised:
        errors = [error for error in leaves(raised) if isinstance(error, OSError)]
        if len(errors) < len(list(leaves(raised))):
            raise
        unusable = [_unusable(error, port) for error in errors]
        raise ExceptionGroup("the simulator cannot start", unusable) from raised


def _unusable(error: OSError, port: int) -> UsageError:
    """Return what a person must know about a file or a port that cannot be used."""
    place = f"The ledger {error.filename}" if error.filename else f"Port {port}"
    return UsageError(f"{place} cannot be used: {error.strerror}.", "Choose another.")


def _with_scenario(settings: "Settings", path: Path) -> "Settings":
    from orchestrator.simulator import ScenarioError, read_changes

    try:
        return replace(settings, **read_changes(json.loads(path.read_bytes()), settings))
    except (OSError, ValueError, ScenarioError) as error:
        raise UsageError(
            f"The scenario {path} cannot be used: {error}.", "Mend the file."
        ) from error


def _ready(options: "SimulatorOptions") -> "Callable[[Simulator], None]":
    def say(simulator: "Simulator") -> None:
        key = options.keys[0]
        for service in ("CVM", "COS", "STS", "METADATA"):
            print(f"export ORCHESTRATOR_{service}_ENDPOINT={simulator.url}")
        print(f"export TENCENTCLOUD_SECRET_ID={key.secret_id}")
        print(f"export TENCENTCLOUD_SECRET_KEY={key.secret_key}", flush=True)
        print(f"The cloud listens on {simulator.url}; Ctrl-C ends it.", file=sys.stderr)

    return say
