"""Large batches through the command line; `make scale` runs these and prints figures."""

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cloud.error_codes import CODES
from orchestrator.model import Reaction
from orchestrator.simulator import (
    Duration,
    Entry,
    Fault,
    Refusal,
    Settings,
    Simulator,
    SimulatorOptions,
)
from tests.cli_process import Shell, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.scale]


def make_manifest(count: int) -> bytes:
    """Make a CSV manifest of this many images."""
    rows = "".join(f"img-{i:08d},ap-singapore,backup-1250000000\n" for i in range(count))
    return f"image_id,region,bucket\n{rows}".encode()


def count_exports(ledger: Sequence[Entry]) -> Counter[str]:
    """Return how often an export of each image began."""
    return Counter(image for entry in ledger if entry.accepted for image in entry.image_ids)


def print_figures(**figures: Any) -> None:
    """Print figures as a line of JSON."""
    print(json.dumps(figures))  # noqa: T201 - the figures are what these are run for


async def test_400_images_use_the_whole_rate_and_nothing_is_refused(tmp_path: Path) -> None:
    """Without a cap only the rate limits a run: it is fully used, and never exceeded."""
    settings = Settings(cap=None, duration=Duration(seconds=1.0))
    async with Simulator(SimulatorOptions(settings=settings)) as cloud:
        shell = Shell.for_cloud(cloud, tmp_path)
        await shell.run("enqueue", "-", stdin=make_manifest(400))
        ended = await shell.run("run", "--json")
        times = sorted(e.monotonic for e in cloud.ledger if e.action == "ExportImages")
        aligned = Counter(int(e.arrived) for e in cloud.ledger if e.action == "ExportImages")
        refused = sum(e.code is not None for e in cloud.ledger if e.service == "cvm")
    sliding = max(sum(start <= t < start + 1 for t in times) for start in times)
    rate = (len(times) - 1) / (times[-1] - times[0])
    worst = max(aligned.values())
    print_figures(
        accepted_per_second=rate, worst_aligned=worst, worst_sliding=sliding, refused=refused
    )
    assert (ended.code, ended.json["verified"]) == (0, 400)
    assert (worst <= 20, refused) == (True, 0)


async def test_600_images_with_all_permanent_errors(tmp_path: Path) -> None:
    """State, TaskId and CosPaths equal the ledger, and each failure has its remedy."""
    permanent = sorted(name for name, code in CODES.items() if code.reaction is Reaction.FAIL)
    images = [f"img-{number:08d}" for number in range(600)]
    broken = {image: permanent[i % len(permanent)] for i, image in enumerate(images[:200])}
    codes = tuple(Refusal(images=(image,), code=code) for image, code in broken.items())
    settings = Settings(cap=None, limits={}, duration=Duration(seconds=0.5), codes=codes)
    async with Simulator(SimulatorOptions(settings=settings)) as cloud:
        shell = Shell.for_cloud(cloud, tmp_path, ORCHESTRATOR_RATE="0")
        await shell.run("enqueue", "-", stdin=make_manifest(600))
        ended = await shell.run("run", "--json")
        rows = (await shell.run("history", "--json")).rows
        answers = {e.image_ids[0]: e for e in cloud.ledger if e.action == "ExportImages"}
        asked = Counter(e.image_ids[0] for e in cloud.ledger if e.action == "ExportImages")
    wrong = [row for row in rows if not _agrees(row, answers[row["image_ids"][0]])]
    states = Counter(row["state"] for row in rows)
    requests = asked.total()
    print_figures(codes=len(permanent), states=states, requests=requests, disagreeing=len(wrong))
    assert ended.code == 3
    assert not wrong
    assert states == {"verified": 400, "failed": 200}
    # a refusal of many images in a row is tried again: it may concern the region
    assert {times for image, times in asked.items() if image not in broken} == {1}


def _agrees(row: dict[str, Any], entry: Entry) -> bool:
    if entry.accepted:
        held = (row["state"], row["task_id"], sorted(row["cos_paths"]), row["request_id"])
        return held == ("verified", entry.task_id, sorted(entry.cos_paths), entry.request_id)
    failed = (row["state"], row["code"], row["task_id"], row["request_id"])
    return failed == ("failed", entry.code, None, entry.request_id) and bool(row["remedy"])


async def test_300_images_with_two_kills(
    tmp_path: Path,
) -> None:
    """SIGKILL with requests in flight, twice: each image is accepted exactly once."""
    slow = Fault("latency", action="ExportImages", seconds=0.2)
    settings = Settings(cap=None, duration=Duration(seconds=2.0), faults=(slow,))
    async with Simulator(SimulatorOptions(settings=settings)) as cloud:
        shell = Shell.for_cloud(cloud, tmp_path, ORCHESTRATOR_RESEND_AFTER="5")
        await shell.run("enqueue", "-", stdin=make_manifest(300))
        for reached in (100, 200):
            async with shell.start("run") as process:
                await wait_until(
                    lambda goal=reached: count_exports(cloud.ledger).total() >= goal, 300
                )
                process.send_signal(signal.SIGKILL)
                await process.wait()
        ended = await shell.run("run", "--json")
        began = count_exports(cloud.ledger)
        rows = (await shell.run("history", "--json")).rows
    twice = [image for image, times in began.items() if times > 1]
    reconciled = sum(row["task_id"] is None for row in rows)
    states = Counter(row["state"] for row in rows)
    print_figures(accepted=len(began), twice=len(twice), states=states, reconciled=reconciled)
    assert (ended.code, len(began), twice) == (0, 300, [])
    assert states == {"verified": 300}
