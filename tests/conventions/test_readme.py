"""README.md agrees with the program."""

import json
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.cli import run
from orchestrator.cli.main import app
from orchestrator.job_states import TRANSITIONS, JobState
from orchestrator.settings import Settings as OurSettings
from orchestrator.simulator import (
    DEFAULT_KEY,
    Duration,
    Settings,
    Simulator,
    SimulatorOptions,
    read_changes,
)
from orchestrator.wording import how_to_install

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """Run a simulated cloud whose exports take 0.1 s."""
    settings = Settings(cap=None, duration=Duration(seconds=0.1), queue_delay=0.0)
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


@pytest.mark.anyio
async def test_the_python_example_exports_images(
    cloud: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example runs unchanged and returns the paths that the cloud has written."""
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
    """The diagram has every allowed transition, and no other."""
    diagram = README.split("stateDiagram-v2")[1].split("```")[0]
    drawn = set(re.findall(r"(\w+) --> (\w+)", diagram))
    table = {(str(a), str(b)) for a, targets in TRANSITIONS.items() for b in targets}
    assert drawn == table
    assert "[*] --> queued" in diagram


def test_every_command_is_in_the_readme() -> None:
    """The table of commands has each visible command, and no other."""
    table = README.split("## Commands")[1].split("###")[0]
    named = {row.split("`")[1].split()[0] for row in table.splitlines() if row.startswith("| `")}
    commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    assert named == {name for name, command in commands.items() if not command.hidden}


def test_guarantee_names_final_states_and_unknown() -> None:
    """The guarantee names the three final states and unknown."""
    guarantee = README.split("**Guarantee.**")[1].split("##")[0]
    for state in (JobState.VERIFIED, JobState.FAILED, JobState.CANCELLED, JobState.UNKNOWN):
        assert f"*{state}*" in guarantee


def test_the_readme_is_short() -> None:
    """The README has at most 250 lines, so that a reader finds things."""
    assert len(README.splitlines()) <= 250


def test_exit_codes_agree_with_the_help_of_run() -> None:
    """The table of exit codes has the codes that `run --help` names."""
    table = README.split("## Exit codes")[1].split("\n## ")[0]
    cells = re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
    text = (run.command.__doc__ or "").split("Exit codes:")[1].split("Example:")[0]
    assert set(re.findall(r"\d+", " ".join(cells))) == set(re.findall(r"\b\d+\b", text))


def test_commands_that_install_extras_agree() -> None:
    """The README has the command of the messages for each extra of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == {"postgresql", "socks"}
    for extra in project["optional-dependencies"]:
        assert f"`{how_to_install(extra).split(': ')[1]}`" in README


def test_variables_in_the_readme_are_settings() -> None:
    """Each ORCHESTRATOR_ variable that the README names exists."""
    named = set(re.findall(r"ORCHESTRATOR_([A-Z_]+)", README)) - {"CONFIG"}
    assert named <= {name.upper() for name in OurSettings.model_fields}


def test_the_example_scenario_is_valid() -> None:
    """The simulator accepts the example, which has each kind of fault."""
    document = json.loads((ROOT / "config" / "scenario.json").read_text())
    changes = read_changes(document, Settings())
    assert {"codes", "faults", "deliveries", "buckets"} <= changes.keys()
