"""``orchestrator simulate``: run a simulated Tencent Cloud on loopback."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli.exit_codes import leaves
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.simulator import Settings, Simulator


def command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the random generator.")] = 1,
    images: Annotated[
        int, typer.Option(min=0, help="Number of images; 0 accepts any image id.")
    ] = 0,
    cap: Annotated[
        int, typer.Option(min=0, help="Concurrent exports per region; 0 is no limit.")
    ] = 10,
    seconds: Annotated[float, typer.Option(min=0, help="Duration of an export.")] = 1.0,
    scenario: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings in JSON, like config/scenario.json."),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append a JSON line for each request.")
    ] = None,
) -> None:
    """Run a simulated CVM, COS and STS on loopback until Ctrl-C.

    Change settings while it runs: GET /_simulator/settings shows them all, POST changes them.
    /_simulator/ledger, /exports and /state show what happened.

    Example: orchestrator simulate --port 8080 --scenario config/scenario.json
    """
    from orchestrator.simulator import Duration, Settings, SimulatorOptions, serve

    settings = Settings(cap=cap or None, duration=Duration(seconds=seconds))
    if scenario is not None:
        settings = _with_scenario(settings, scenario)
    options = SimulatorOptions(
        port=port, seed=seed, images=images, ledger=ledger, settings=settings
    )
    try:
        anyio.run(serve, options, _print_exports)
    except* KeyboardInterrupt:
        print("Simulator stopped.", file=sys.stderr)
    except* OSError as errors:
        error = next(leaves(errors))
        assert isinstance(error, OSError)
        what = f"The ledger {error.filename}" if error.filename else f"Port {port}"
        raise UsageError(
            f"{what} cannot be used: {error.strerror}.", "Choose another one."
        ) from errors


def _with_scenario(settings: "Settings", path: Path) -> "Settings":
    from orchestrator.simulator import ScenarioError, read_changes

    try:
        return replace(settings, **read_changes(json.loads(path.read_bytes()), settings))
    except (OSError, ValueError, ScenarioError) as error:
        raise UsageError(
            f"The scenario {path} cannot be used: {error}.", "Fix the file."
        ) from error


def _print_exports(simulator: "Simulator") -> None:
    """Print the environment variables for a shell."""
    key = simulator.options.keys[0]
    for service in ("CVM", "COS", "STS", "METADATA"):
        print(f"export ORCHESTRATOR_{service}_ENDPOINT={simulator.url}")
    print(f"export TENCENTCLOUD_SECRET_ID={key.secret_id}")
    print(f"export TENCENTCLOUD_SECRET_KEY={key.secret_key}", flush=True)
    print(f"Listening on {simulator.url}; press Ctrl-C to stop.", file=sys.stderr)
