"""One night: a batch of images, and processes that drain it and are killed, one after another."""

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
"""Uploads begin long before the second of clean looks after which a lost request is sent again."""


_MAX_WAIT = 300.0
"""Maximum wait in seconds. Only a process that hangs takes this long, on a busy machine too."""


@dataclass(frozen=True)
class Kill:
    """When a process is killed: by itself at a moment of its store, or from outside.

    Args:
        kind: as the report names it.
        after: ExportImages requests that arrive before it is killed from outside, each kill with
            requests in the air; 0 where it dies by itself.
    """

    kind: str
    death: KillPoint | None = None
    after: int = 0

    def earlier(self) -> "Kill":
        """Return the same kill at half the number, for a life that ended before the moment."""
        if self.death is None:
            assert self.after > 1, f"{self}: no request arrived"
            return replace(self, after=self.after // 2)
        assert self.death.number > 1, f"{self}: no such moment came"
        return replace(self, death=replace(self.death, number=self.death.number // 2))


@dataclass(frozen=True)
class Scenario:
    """What a night is made of.

    Args:
        kills: one for each life but the last. The number of moments in a life depends on the
            speed of the machine. If a life ends before its moment, as many exports again are
            enqueued, and another life is killed at half the number.
        capped: the cloud runs so few exports at once that most requests are refused.
        losing: the cloud loses answers, and requests.
    """

    kills: Sequence[Kill]
    exports: int = 40
    capped: bool = False
    losing: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def cloud(self) -> Settings:
        """The cloud of this night."""
        faults = (*_LOST, _SLOW) if self.losing else (_SLOW,)
        return replace(_QUICK, cap=8 if self.capped else None, faults=faults)


def make_kill(kind: str, chance: random.Random) -> Kill:
    """A kill of this kind, at a moment drawn by chance."""
    number = chance.randint(1, 3)  # answers and findings are kept in groups
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


async def run_scenario(night: Scenario, fork_server: ForkServer) -> ExportCounts:
    """Lives through one night; its figures, from the ledger."""
    batch: list[str] = []
    with TemporaryDirectory(prefix="night-") as name:
        folder = Path(name)
        async with Simulator(SimulatorOptions(settings=night.cloud)) as cloud:
            life = WorkerSpec(cloud.url, folder, night.settings)
            await _enqueue_more(batch, night, life)
            for kill in night.kills:
                due = kill
                while not await _killed(due, life, cloud, fork_server):
                    due = due.earlier()
                    await _enqueue_more(batch, night, life)
            async with fork_server.start_child(life) as last:
                with anyio.fail_after(_MAX_WAIT):
                    assert await last.wait() == 0, _log_of(life)
            async with make_orchestrator(cloud.url, folder, **night.settings) as orchestrator:
                found = await read_jobs(orchestrator)
            tally = compare_with_ledger(batch, cloud.ledger, found)
        tally.kills.update(kill.kind for kill in night.kills)
        tally.secrets = count_files_with_secret(folder)
    return tally


async def _enqueue_more(batch: list[str], night: Scenario, life: WorkerSpec) -> None:
    """Add the exports of one night to the batch, and enqueue them."""
    more = make_image_ids(night.exports, first=len(batch))
    async with make_orchestrator(life.url, life.folder, **life.settings) as orchestrator:
        await orchestrator.enqueue(make_requests_for(more))
    batch += more


async def _killed(kill: Kill, life: WorkerSpec, cloud: Simulator, fork_server: ForkServer) -> bool:
    """Return whether the process was killed; otherwise it has ended by itself, without error."""
    async with fork_server.start_child(replace(life, death=kill.death)) as child:
        if kill.after:
            await wait_for_requests(cloud, child, kill.after)
            child.kill()
        with anyio.fail_after(_MAX_WAIT):
            code = await child.wait()
    assert code in {0, -signal.SIGKILL}, _log_of(life)
    return code != 0


def _log_of(life: WorkerSpec) -> str:
    return (life.folder / "children.log").read_text()


async def wait_for_requests(cloud: Simulator, child: ChildProcess, requests: int) -> None:
    """Returns when so many ExportImages more have arrived, or the child has ended by itself."""
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
    """How many ExportImages have arrived."""
    return sum(entry.action == "ExportImages" for entry in cloud.ledger)
