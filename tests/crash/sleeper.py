"""A process that is stopped between claim and request, for longer than lease and signature."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from orchestrator.job_states import JobState
from orchestrator.reporting.history import JobDetails
from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions
from tests.crash.life import Life
from tests.crash.processes import Child, zygote
from tests.crash.tally import Tally, count, secrets_in
from tests.end_to_end.scene import MAX_WAIT, images, jobs_of, orchestrator_at, orders

BATCH = images(3)
_SETTINGS: dict[str, Any] = {"concurrency": 1, "rate": 5}
"""With which one job is claimed at a time."""
_A_NIGHT = 600.0


@dataclass(frozen=True)
class Nap:
    """What came of a night on which one process slept.

    Args:
        story: of the job whose request the sleeper held.
        codes: of every refusal of an ExportImages.
    """

    tally: Tally
    story: JobDetails
    codes: list[str]


@asynccontextmanager
async def asleep(life: Life) -> AsyncIterator[Child]:
    """A process that has claimed a job and fallen asleep over it; woken in the end."""
    async with zygote() as mother, mother.child(replace(life, falls_asleep=True)) as child:
        with anyio.fail_after(MAX_WAIT):
            while not await _is_stopped(child.number):
                await anyio.sleep(0.02)
        try:
            yield child
        finally:
            wake(child)


def wake(child: Child) -> None:
    """Lets a sleeper go on."""
    if child.code is None:
        os.kill(child.number, signal.SIGCONT)


async def _is_stopped(number: int) -> bool:
    told = await anyio.run_process(["ps", "-o", "stat=", "-p", str(number)], check=False)
    return told.stdout.startswith(b"T")


async def nap(*, lease: float | None, fence: float | None, woken_by: JobState) -> Nap:
    """One process sleeps over its claim while another drains the store.

    Args:
        lease: duration of the sleeper's lease in seconds, if not the usual one.
        fence: seconds for which its signature is feared, where not the usual ones; then the
            vendor's clock is put forward instead, before the sleeper wakes.
        woken_by: the state of its job in which it is woken.
    """
    settings = Settings(limits={}, cap=None, duration=Duration(seconds=0.3), queue_delay=0.01)
    with TemporaryDirectory(prefix="nap-") as name:
        folder = Path(name)
        async with Simulator(SimulatorOptions(settings=settings)) as cloud:
            async with orchestrator_at(cloud.url, folder) as orchestrator:
                await orchestrator.enqueue(orders(BATCH))
                life = Life(cloud.url, folder, _SETTINGS, fence=fence)
                async with asleep(replace(life, lease=lease)) as sleeper:
                    (held,) = await jobs_of(orchestrator, states=("sending",))
                    async with zygote() as mother, mother.child(life) as other:
                        with anyio.fail_after(_A_NIGHT):
                            while (await _job(orchestrator, held.id)).job.state is not woken_by:
                                await anyio.sleep(0.1)
                            if woken_by is JobState.VERIFIED and fence is not None:
                                cloud.change(skew=301)
                            wake(sleeper)
                            assert (await sleeper.ended(), await other.ended()) == (0, 0)
                story = await _job(orchestrator, held.id)
                tally = count(BATCH, cloud.ledger, await jobs_of(orchestrator))
            refusals = [e.code for e in cloud.ledger if e.action == "ExportImages" and e.code]
        tally.secrets = secrets_in(folder)
    return Nap(tally, story, refusals)


async def _job(orchestrator: Any, number: int) -> JobDetails:
    story: JobDetails | None = await orchestrator.show(str(number))
    assert story is not None
    return story
