"""The recorder itself: it is a black box, and its results are readable and stable."""

import ast
import json
from pathlib import Path

from tests.pinned.__main__ import as_text, differences
from tests.pinned.normalizer import Normalizer, event_line, request_line
from tests.pinned.scenarios import SCENARIOS

FOLDER = Path(__file__).parent
ENTRY = {
    "service": "cvm",
    "action": "ExportImages",
    "region": "ap-singapore",
    "image_ids": ["img-00000001"],
    "task_id": 7,
    "request_id": "r-1",
    "code": None,
    "fault": None,
    "accepted": True,
    "dry_run": False,
}


def test_nothing_is_imported_from_the_program() -> None:
    """The package imports no module of the program, so it runs against any source."""
    imported = {
        name
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imports(node)
    }
    ours = {name for name in imported if name.partition(".")[0] in {"orchestrator", "tests"}}
    assert {name for name in ours if not name.startswith("tests.pinned")} == set()


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{'.' * node.level}{node.module or ''}"]
    return []


def test_names_of_scenarios_are_unique() -> None:
    """No scenario hides another one."""
    names = [scenario.name for scenario in SCENARIOS]
    assert len(names) == len(set(names))


def test_every_scenario_is_recorded() -> None:
    """The recording holds each scenario with just the parts that it compares."""
    recorded = json.loads((FOLDER / "recorded.json").read_text())
    assert {name: tuple(parts) for name, parts in recorded.items()} == {
        scenario.name: scenario.parts for scenario in SCENARIOS
    }


def test_what_differs_from_run_to_run_is_replaced() -> None:
    """Times, ids, tags and paths become placeholders; what the program decided stays."""
    normalizer = Normalizer(
        [{"id": 1, "tag": "abc"}, {"id": 2, "tag": "abc-1"}],
        [ENTRY],
        Path("/a/folder"),
        "http://127.0.0.1:5",
    )
    line = {
        "id": 2,
        "state": "failed",
        "tag": "abc-1",
        "batch": "20261128-091500-ab12",
        "task_id": 7,
        "request_id": "r-2",
        "sent_at": "2026-11-28T09:15:00.000Z",
        "accepted_at": None,
        "message": "The export was lost.",
        "cos_paths": ["/n-abc-1_img.raw", "/a/folder/abc"],
        "seconds_left": 1.5,
        "actor": "host-17-00ff00ff",
    }
    assert normalizer.normalized(line) == {
        "id": 2,
        "state": "failed",
        "tag": "<tag 2>",
        "batch": "<batch>",
        "task_id": "<task of img-00000001>",
        "request_id": "<request that is not in the ledger>",
        "sent_at": "<time>",
        "accepted_at": None,
        "message": "<text>",
        "cos_paths": ["/n-<tag 2>_img.raw", "<folder>/<tag 1>"],
        "seconds_left": "<seconds>",
        "actor": "<process>",
    }


def test_events_and_requests_become_lines() -> None:
    """An event shows its states, a request what came of it."""
    event = {"kind": "claimed", "from_state": "queued", "to_state": "sending"}
    assert event_line(event) == "claimed: queued → sending"
    assert event_line({"kind": "noted", "from_state": None, "to_state": None}) == "noted"
    assert request_line(ENTRY) == "cvm ExportImages ap-singapore img-00000001 → accepted"
    lost = {**ENTRY, "accepted": False, "fault": "reset"}
    assert request_line(lost) == "cvm ExportImages ap-singapore img-00000001 → lost by reset"


def test_differences_name_their_place() -> None:
    """Each difference says where it is, what was recorded and what is found."""
    recorded = {"a": [1, 2, 3], "b": {"c": "x"}, "d": 1}
    now = {"a": [1, 3], "b": {"c": "y"}, "e": 2}
    assert list(differences(recorded, now)) == [
        "a / [1]\n  - 2",
        'b / c\n  - "x"\n  + "y"',
        "d\n  - 1",
        "e\n  + 2",
    ]
    assert list(differences(recorded, recorded)) == []


def test_the_recording_is_readable_json() -> None:
    """Fields fill their lines, each title begins a line, and the value is unchanged."""
    value = {
        "1. run": {f"field_{number}": "x" * 20 for number in range(10)},
        "2. history": [{"text": "x" * 60}, {"text": "y" * 60}],
        "3. status": [],
    }
    text = as_text(value)
    lines = text.splitlines()
    assert json.loads(text) == value
    assert max(map(len, lines)) <= 110
    assert [line for line in lines if "history" in line] == ['  "2. history": [']
    assert sum("field_" in line for line in lines) == 4
