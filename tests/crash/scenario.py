"""One scenario: a batch of images, drained by processes that are killed one after another."""

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from orchestrator.simulator import Duration, Fault, Settings, Simulator, SimulatorOptions
from tests.crash.child_processes import ChildProcess, ForkServer
from tests.crash.export_counts import ExportCounts, compare_with_ledger, count_files_with_secret
from tests.crash.worker_process import CLAIM, FINDING, RECORD, KillPoint, WorkerSpec
from tests.end_to_end.harness import make_image_ids, make_orchestrator, make_requests_for, read_jobs

_LOST = (
    Fault("reset", action="ExportImages", after=True, chance=0.1),
    Fault("reset", action="ExportImages", chance=0.05),
)
_SLOW = Fault("latency", action="ExportImages", seconds=0.02, jitter=0.02)
_QUICK = Settings(limits={}, cap=None, duration=Duration(seconds=0.1), queue_delay=0.01)
"""Uploads begin long before the second of empty lookups after which a request is sent again."""


_MAX_WAIT = 300.0
"""Maximum wait in seconds. Only a process that hangs takes this long, on a busy machine too."""

_MAX_TRIES = 12
"""More than the halvings that lead from the largest number of a kill to 1."""


@dataclass(frozen=True)
class Kill:
    """When a process is killed: by itself at a kill point, or from outside.

    Args:
        kind: its name in the report.
        after: number of ExportImages that arrive before it is killed from outside, so that others
            are in flight; 0 if it kills itself.
    """

    kind: str
    kill_point: KillPoint | None = None
    after: int = 0

    def earlier(self) -> "Kill":
        """Return the same kill at half the number, for a process that ended before it."""
        if self.kill_point is None:
            return replace(self, after=max(1, self.after // 2))
        number = max(1, self.kill_point.number // 2)
        return replace(self, kill_point=replace(self.kill_point, number=number))


@dataclass(frozen=True)
class Scenario:
    """The images, kills and faults of one scenario.

    Args:
        kills: one for each process but the last. How many kill points a process passes depends
            on the speed of the machine. If it ends before its kill, as many exports again are
            enqueued, and another process is killed at half the number.
        capped: whether the cap of the cloud is so low that most requests are refused.
        losing: whether the cloud loses answers and requests.
    """

    kills: Sequence[Kill]
    exports: int = 40
    capped: bool = False
    losing: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def cloud(self) -> Settings:
        """The settings of the cloud."""
        faults = (*_LOST, _SLOW) if self.losing else (_SLOW,)
        return replace(_QUICK, cap=8 if self.capped else None, faults=faults)


def make_kill(kind: str, chance: random.Random) -> Kill:
    """Return a kill of this kind, at a random moment."""
    number = chance.randint(1, 3)  # small, because answers and findings share commits
    match kind:
        case "claim":
            return Kill(kind, KillPoint(number, "commit", CLAIM))
        case "record":
            return Kill(kind, KillPoint(number, "commit", RECORD))
        case "finding":
            return Kill(kind, KillPoint(number, "commit", FINDING))
        case "answer in hand":
            return Kill(kind, KillPoint(number, "statement", RECORD))
        case _:
            return Kill("in flight", after=number)


KILL_KINDS = ("in flight", "answer in hand", "claim", "record", "in flight", "finding")


async def run_scenario(scenario: Scenario, fork_server: ForkServer) -> ExportCounts:
    """Run one scenario; return its counts from the ledger."""
    batch: list[str] = []
    with TemporaryDirectory(prefix="scenario-") as name:
        folder = Path(name)
        async with Simulator(SimulatorOptions(settings=scenario.cloud)) as cloud:
            spec = WorkerSpec(cloud.url, folder, scenario.settings)
            await _enqueue_more(batch, scenario, spec)
            for kill in scenario.kills:
                due = kill
                for _ in range(_MAX_TRIES):
                    if await _killed(due, spec, cloud, fork_server):
                        break
                    # The jobs may all have been sent before this process started.
                    due = due.earlier()
                    await _enqueue_more(batch, scenario, spec)
                else:
                    raise AssertionError(f"never came: {due}\n{_read_log(spec)}")
            async with fork_server.start_child(spec) as last:
                with anyio.fail_after(_MAX_WAIT):
                    assert await last.wait() == 0, _read_log(spec)
            async with make_orchestrator(cloud.url, folder, **scenario.settings) as orchestrator:
                found = await read_jobs(orchestrator)
            counts = compare_with_ledger(batch, cloud.ledger, found)
        counts.kills.update(kill.kind for kill in scenario.kills)
        counts.secrets = count_files_with_secret(folder)
    return counts


async def _enqueue_more(batch: list[str], scenario: Scenario, spec: WorkerSpec) -> None:
    """Add the scenario's number of exports to the batch, and enqueue them."""
    more = make_image_ids(scenario.exports, first=len(batch))
    async with make_orchestrator(spec.url, spec.folder, **spec.settings) as orchestrator:
        await orchestrator.enqueue(make_requests_for(more))
    batch += more


async def _killed(kill: Kill, spec: WorkerSpec, cloud: Simulator, fork_server: ForkServer) -> bool:
    """Return whether the process was killed before it ended by itself.

    A process that ends by itself must end without an error.
    """
    async with fork_server.start_child(replace(spec, kill_point=kill.kill_point)) as child:
        if kill.after:
            await wait_for_requests(cloud, child, kill.after)
            child.kill()
        with anyio.fail_after(_MAX_WAIT):
            code = await child.wait()
    assert code in {0, -signal.SIGKILL}, _read_log(spec)
    return code != 0


def _read_log(spec: WorkerSpec) -> str:
    return (spec.folder / "children.log").read_text()


async def wait_for_requests(cloud: Simulator, child: ChildProcess, requests: int) -> None:
    """Wait until this many more ExportImages have arrived, or the child has ended."""
    goal = count_requests(cloud) + requests
    async with anyio.create_task_group() as tasks:

        async def see_the_end() -> None:
            await child.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(see_the_end)
        with anyio.fail_after(_MAX_WAIT):
            while count_requests(cloud) < goal:
                await anyio.sleep(0.002)
        tasks.cancel_scope.cancel()


def count_requests(cloud: Simulator) -> int:
    """Return how many ExportImages have arrived."""
    return sum(entry.action == "ExportImages" for entry in cloud.ledger)
