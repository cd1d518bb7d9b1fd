"""A simulated cloud in its own process, controlled and read over HTTP."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True)
class SimulatorProcess:
    """A running simulator.

    Args:
        url: its base URL.
        variables: the environment variables for its clients, as the simulator prints them.
    """

    url: str
    variables: dict[str, str]

    def change_settings(self, **settings: Any) -> None:
        """Change settings of the running simulator."""
        httpx.post(f"{self.url}/_simulator/settings", json=settings).raise_for_status()

    def requests(self, action: str = "ExportImages") -> list[dict[str, Any]]:
        """Return the ledger's entries of one action, in order."""
        lines = httpx.get(f"{self.url}/_simulator/ledger", timeout=60).text.splitlines()
        entries = map(json.loads, lines)
        return [entry for entry in entries if entry["action"] == action]

    def exports(self) -> list[dict[str, Any]]:
        """Return all exports that began, with their times on the server's clock."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/_simulator/exports", timeout=60).json()
        return found


@contextmanager
def start_simulator(folder: Path, **settings: Any) -> Iterator[SimulatorProcess]:
    """Run a simulator with these settings until the block ends."""
    scenario = folder / "scenario.json"
    scenario.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "orchestrator", "simulate", "--scenario", str(scenario)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield _listening(process.stdout or ())
        finally:
            process.terminate()


def _listening(lines: Sequence[str] | Any) -> SimulatorProcess:
    variables: dict[str, str] = {}
    for line in lines:
        name, value = line.removeprefix("export ").strip().split("=", 1)
        variables[name] = value
        if name == "TENCENTCLOUD_SECRET_KEY":
            return SimulatorProcess(variables["ORCHESTRATOR_CVM_ENDPOINT"], variables)
    raise RuntimeError("the simulator did not start")
