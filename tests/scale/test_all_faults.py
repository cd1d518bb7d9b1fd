"""A large batch with all kinds of faults; `make scale` runs it."""

from collections import Counter
from pathlib import Path

import anyio
import pytest

from orchestrator.simulator import (
    Duration,
    Fault,
    Refusal,
    Settings,
    Simulator,
    SimulatorOptions,
)
from tests.cli_process import Shell

from .test_large_batch import count_exports, make_manifest, print_figures

pytestmark = [pytest.mark.anyio, pytest.mark.scale]

EXPORT = "ExportImages"

FAULTS = (
    Fault("reset", action=EXPORT, after=True, chance=0.1),
    Fault("reset", action=EXPORT, chance=0.005),
    Fault("latency", action=EXPORT, chance=0.005, seconds=2.0),
    Fault("half", action=EXPORT, chance=0.005),
    Fault("hang", action=EXPORT, chance=0.0025),
    Fault("hang", action=EXPORT, after=True, chance=0.0025),
    Fault("gateway", action=EXPORT, chance=0.005),
    Fault("gateway", action=EXPORT, after=True, status=504, chance=0.005),
    Fault("html", action=EXPORT, chance=0.0025),
    Fault("bare", action=EXPORT, after=True, chance=0.0025),
    Fault("gateway", action="cos", status=503, chance=0.05),
    Fault("reset", action="cos", chance=0.05),
)
REFUSALS = (
    Refusal("InternalError", chance=0.0025),
    Refusal("InternalError", chance=0.0025, after=True),
    Refusal("MutexOperation.TaskRunning", chance=0.005),
    Refusal("RequestLimitExceeded", chance=0.005),
    Refusal("AccessDenied", action="cos", chance=0.03),
)


async def test_600_images_with_all_faults(tmp_path: Path) -> None:
    """Lost answers, all other faults and a failing COS: each image is exported once."""
    settings = Settings(
        cap=None,
        duration=Duration(seconds=2.0),
        queue_delay=0.1,
        faults=FAULTS,
        codes=REFUSALS,
    )
    async with Simulator(SimulatorOptions(settings=settings)) as cloud:
        shell = Shell.for_cloud(
            cloud, tmp_path, ORCHESTRATOR_RESEND_AFTER="5", ORCHESTRATOR_REQUEST_TIMEOUT="5"
        )
        await shell.run("enqueue", "-", stdin=make_manifest(600))
        with anyio.fail_after(1200):
            ended = await shell.run("run", "--json")
        rows = (await shell.run("history", "--json")).rows
        asked = [entry for entry in cloud.ledger if entry.action == EXPORT]
        began = count_exports(cloud.ledger)
    wrong = Counter(entry.fault or entry.code or "none" for entry in asked)
    twice = sum(times > 1 for times in began.values())
    reconciled = sum(row["task_id"] is None for row in rows)
    states = Counter(row["state"] for row in rows)
    each = len(asked) / 600
    told = len(ended.err.splitlines())
    print_figures(
        states=states, twice=twice, requests_per_image=each, reconciled=reconciled, told=told
    )
    print_figures(answers=wrong)
    assert ended.code == 0, ended.err
    assert states == {"verified": 600}
    assert (len(began), twice) == (600, 0)
    assert each <= 1.3
