"""The control API: ledger, exports, state and settings."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.simulator import (
    Delivery,
    Duration,
    Fault,
    ImageSettings,
    ScenarioError,
    Settings,
    Simulator,
    SimulatorOptions,
    read_changes,
)
from tests.simulator.clients import BUCKET, export

pytestmark = pytest.mark.anyio

ONE = "img-00000001"


async def get(http: httpx.AsyncClient, simulator: Simulator, path: str) -> Any:
    """Return the JSON of a path of the control API."""
    return (await http.get(f"{simulator.url}/_simulator/{path}")).json()


async def change(http: httpx.AsyncClient, simulator: Simulator, given: Any) -> httpx.Response:
    """Post settings, and return the answer."""
    return await http.post(f"{simulator.url}/_simulator/settings", json=given)


async def test_ledger_has_a_line_per_request(http: httpx.AsyncClient, tmp_path: Path) -> None:
    """Each request is written to the file at once, and HTTP serves the same line."""
    path, before = tmp_path / "ledger.jsonl", time.time()
    async with Simulator(SimulatorOptions(ledger=path)) as simulator:
        answer = await export(http, simulator, ONE, FileNamePrefixList=["ü"])
        entry = json.loads(path.read_text(encoding="utf-8"))
        served = await http.get(f"{simulator.url}/_simulator/ledger")
    assert served.text == path.read_text(encoding="utf-8")
    assert before <= entry.pop("arrived") <= time.time()
    assert entry.pop("monotonic") <= time.monotonic()
    assert entry == {
        "service": "cvm",
        "action": "ExportImages",
        "connection": 1,
        "account": "100000000001",
        "region": "ap-singapore",
        "image_ids": [ONE],
        "prefixes": ["ü"],
        "bucket": BUCKET,
        "key": None,
        "dry_run": False,
        "http_status": 200,
        "code": None,
        "task_id": answer["TaskId"],
        "cos_paths": answer["CosPaths"],
        "request_id": answer["RequestId"],
        "fault": None,
        "accepted": True,
    }


async def test_ledger_file_is_appended_to(http: httpx.AsyncClient, tmp_path: Path) -> None:
    """A second simulator appends to the file of the first."""
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        async with Simulator(SimulatorOptions(ledger=path)) as simulator:
            await export(http, simulator, ONE)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


async def test_exports_are_listed_with_times_and_states(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Exports have times and a state; one that never ends has no end."""
    simulator.change(deliveries=(Delivery("stuck", images=("img-00000002",)),))
    answer = await export(http, simulator, ONE, "img-00000002", OnlyExportRootDisk=True)
    simulator.change(skew=260.0)
    good, stuck = await get(http, simulator, "exports")
    assert (good["state"], stuck["state"]) == ("ended", "uploading")
    assert (good["delivery"], stuck["delivery"]) == (None, "stuck")
    assert [f"/{key}" for key in good["objects"] + stuck["objects"]] == answer["CosPaths"]
    assert good["ends_at"] == pytest.approx(good["accepted_at"] + 250)
    assert stuck["ends_at"] is None


async def test_state_has_counts(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """The state has counts of requests, refusals, exports and objects, and the cap."""
    await export(http, simulator, ONE, OnlyExportRootDisk=True)
    await export(http, simulator, ONE)
    state = await get(http, simulator, "state")
    assert state == {
        "requests": 2,
        "refused": {"InvalidParameterValue.InvalidImageState": 1},
        "exports": 1,
        "duplicates": 0,
        "running": {"100000000001/ap-singapore": 1},
        "cap": 10,
        "occupied": 0,
        "objects": 0,
    }
    simulator.change(skew=260.0)
    state = await get(http, simulator, "state")
    assert (state["running"], state["objects"]) == ({}, 1)


async def test_settings_can_be_changed(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """The answer shows all current settings; those not named are unchanged."""
    given = {
        "cap": None,
        "skew": 5,
        "duration": {"kind": "uniform", "seconds": 9},
        "faults": [{"kind": "reset", "after": True, "images": [ONE], "times": 1}],
        "deliveries": [{"kind": "partial", "chance": 0.5}],
    }
    answer = await change(http, simulator, given)
    assert answer.status_code == 200
    assert answer.json() == await get(http, simulator, "settings")
    assert answer.json()["queue_delay"] == 50
    assert simulator.settings.cap is None
    assert simulator.settings.duration == Duration("uniform", seconds=9)
    assert simulator.settings.faults == (Fault("reset", after=True, images=(ONE,), times=1),)


async def test_undocumented_behaviour_can_be_set(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Settings for undocumented behaviour of the vendor can be set and unset."""
    names = ("ignore_prefix", "hide_uploads", "empty_listings")
    for value in (True, False):
        answer = await change(http, simulator, dict.fromkeys(names, value))
        assert [answer.json()[name] for name in names] == [value] * 3
        assert [getattr(simulator.settings, name) for name in names] == [value] * 3


async def test_settings_round_trip(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """The settings that GET shows can be posted again."""
    simulator.change(images={ONE: ImageSettings(sizes=(20, 30), tags={"a": "b"})})
    before = simulator.settings
    shown = await get(http, simulator, "settings")
    assert (await change(http, simulator, shown)).status_code == 200
    assert simulator.settings == before


def test_limits_images_and_buckets_are_merged() -> None:
    """Naming one leaves the others unchanged."""
    current = Settings(limits={"ExportImages": 20, "DescribeImages": 40})
    changes = read_changes({"limits": {"ExportImages": 5}}, current)
    assert changes == {"limits": {"ExportImages": 5, "DescribeImages": 40}}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"capp": 3}, "'capp'"),
        ({"cap": "3"}, "cap must be int"),
        ({"cap": True}, "cap must be int"),
        ({"hide_uploads": 1}, "hide_uploads must be bool"),
        ({"faults": [{"kind": "reset", "often": 2}]}, "'often'"),
        ({"faults": [{"kind": "flood"}]}, "latency, reset"),
        ({"faults": [{"after": True}]}, "'kind'"),
        ({"images": {ONE: {"sizes": ["50"]}}}, "sizes[0] must be int"),
        ({"codes": {}}, "codes must be list"),
        ([], "the settings must be an object"),
    ],
)
def test_wrong_settings_are_named(given: Any, named: str) -> None:
    """Unknown keys, wrong types and missing members are refused by name."""
    with pytest.raises(ScenarioError, match=named.replace("[", r"\[")):
        read_changes(given, Settings())


@pytest.mark.parametrize("body", [b'{"cap": 1, "capp": 3}', b"{"])
async def test_bad_settings_change_nothing(
    simulator: Simulator, http: httpx.AsyncClient, body: bytes
) -> None:
    """Wrong settings are refused as a whole, with 400 and a reason."""
    before = simulator.settings
    answer = await http.post(f"{simulator.url}/_simulator/settings", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert simulator.settings == before


async def test_unknown_path_is_not_found(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """An unknown path is answered with 404 and not recorded in the ledger."""
    answer = await http.delete(f"{simulator.url}/_simulator/ledger")
    assert answer.status_code == 404
    assert not simulator.ledger


async def test_no_secret_is_shown(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Neither the settings nor the options show a secret key."""
    assert "simulator-secret-key" not in json.dumps(await get(http, simulator, "settings"))
    assert "simulator-secret-key" not in repr(simulator.options)
