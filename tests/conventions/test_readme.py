"""What the README and CONTRIBUTING say is true."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.cli.main import app
from orchestrator.job_states import TRANSITIONS, JobState
from orchestrator.simulator import (
    DEFAULT_KEY,
    Duration,
    Settings,
    Simulator,
    SimulatorOptions,
    read_changes,
)

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """A quick cloud."""
    settings = Settings(cap=None, duration=Duration(seconds=0.1), queue_delay=0.0)
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


@pytest.mark.anyio
async def test_the_python_example_exports_images(
    cloud: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example is run as it stands, and returns the paths that the cloud has accepted."""
    source = README.split("<!-- example -->")[1].split("```python")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_CVM_ENDPOINT", cloud.url)
    monkeypatch.setenv("ORCHESTRATOR_COS_ENDPOINT", cloud.url)
    monkeypatch.setenv("ORCHESTRATOR_VERIFY_INTERVAL", "0.2")
    monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", DEFAULT_KEY.secret_id)
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", DEFAULT_KEY.secret_key)
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102 - our own README
    paths = await names["export"](["img-00000001", "img-00000002"])
    accepted = {tuple(sorted(entry.cos_paths)) for entry in cloud.ledger if entry.accepted}
    assert {tuple(sorted(found)) for found in paths} == accepted
    assert len(accepted) == 2


def test_the_diagram_of_states_is_the_transition_table() -> None:
    """Every move in the table is drawn, and none besides."""
    diagram = README.split("stateDiagram-v2")[1].split("```")[0]
    drawn = set(re.findall(r"(\w+) --> (\w+)", diagram))
    table = {(str(a), str(b)) for a, targets in TRANSITIONS.items() for b in targets}
    assert drawn == table
    assert "[*] --> queued" in diagram


def test_every_command_stands_in_the_readme() -> None:
    """The table of commands names each command, and no other."""
    table = README.split("## Commands")[1].split("Filters:")[0]
    named = {row.split("`")[1].split()[0] for row in table.splitlines() if row.startswith("| `")}
    commands = typer.main.get_command(app)
    assert named == set(getattr(commands, "commands", {}))


def test_every_state_is_explained() -> None:
    """The promise names each way a job can end, in the states' own words."""
    promise = README.split("**The promise.**")[1].split("##")[0]
    for state in (JobState.VERIFIED, JobState.FAILED, JobState.CANCELLED, JobState.UNKNOWN):
        assert f"*{state}*" in promise


def test_the_readme_is_short() -> None:
    """A reader finds the promise: the README stays within 150 lines."""
    assert len(README.splitlines()) <= 150


def test_the_files_that_contributing_names_exist() -> None:
    """The map leads to files that are there."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## Decisions")[0]
    named: list[str] = re.findall(r"`([\w/]+\.(?:py|toml))`", text)
    missing = [
        name
        for name in named
        if not (ROOT / name).exists() and not (ROOT / "orchestrator" / name).exists()
    ]
    assert named
    assert not missing


def test_the_example_scenario_is_one() -> None:
    """The simulator takes the example as it stands, and each kind of misfortune is in it."""
    document = json.loads((ROOT / "config" / "scenario.json").read_text())
    changes = read_changes(document, Settings())
    assert {"codes", "faults", "deliveries", "buckets"} <= changes.keys()
