"""Longer work on one store: several processes side by side, and one that is restarted for ever."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from orchestrator.simulator import Duration, Fault, Settings, Simulator, SimulatorOptions
from tests.command import Shell, until
from tests.crash.life import Life
from tests.crash.night import asked, until_asked
from tests.crash.processes import Zygote, zygote
from tests.crash.tally import Tally, count, secrets_in
from tests.end_to_end.scene import images, jobs_of, orchestrator_at, orders

_LOST = Fault("reset", action="ExportImages", after=True, chance=0.05)
_SETTINGS: dict[str, object] = {"rate": 20}


@asynccontextmanager
async def _store(settings: Settings, batch: list[str]) -> AsyncIterator[tuple[Simulator, Path]]:
    """A cloud, and the folder of a store in which the batch waits."""
    with TemporaryDirectory(prefix="shift-") as name:
        async with Simulator(SimulatorOptions(settings=settings)) as cloud:
            async with orchestrator_at(cloud.url, Path(name)) as orchestrator:
                await orchestrator.enqueue(orders(batch))
            yield cloud, Path(name)


async def _counted(cloud: Simulator, folder: Path, batch: list[str]) -> Tally:
    async with orchestrator_at(cloud.url, folder) as orchestrator:
        tally = count(batch, cloud.ledger, await jobs_of(orchestrator))
    tally.secrets = secrets_in(folder)
    return tally


async def side_by_side(seconds: float, chance: random.Random) -> Tally:
    """Four processes on one file for a while; two of them are killed again and again."""
    batch = images(int(seconds * 60) + 40)
    settings = Settings(
        limits={}, cap=60, duration=Duration(seconds=0.5), queue_delay=0.01, faults=(_LOST,)
    )
    kills = 0
    async with AsyncExitStack() as stack:
        cloud, folder = await stack.enter_async_context(_store(settings, batch))
        zygotes = [await stack.enter_async_context(zygote()) for _ in range(4)]
        life = Life(cloud.url, folder, _SETTINGS)
        over = anyio.current_time() + seconds

        async def steady(mother: Zygote) -> None:
            async with mother.child(life) as child:
                assert await child.ended() == 0, (folder / "children.log").read_text()

        async def unlucky(mother: Zygote) -> None:
            nonlocal kills
            while anyio.current_time() < over:
                async with mother.child(life) as child:
                    await until_asked(cloud, child, chance.randint(5, 80))
                    child.kill()
                    kills += await child.ended() < 0
            await steady(mother)

        async with anyio.create_task_group() as tasks:
            for mother in zygotes[:2]:
                tasks.start_soon(steady, mother)
            for mother in zygotes[2:]:
                tasks.start_soon(unlucky, mother)
        tally = await _counted(cloud, folder, batch)
    tally.kills["one of four processes"] = kills
    return tally


async def restarts(times: int) -> Tally:
    """A process of the command line, killed and started anew: how soon does it send again?"""
    batch = images(times * 25)
    settings = Settings(limits={}, cap=None, duration=Duration(seconds=0.5), queue_delay=0.01)
    tally = Tally()
    async with _store(settings, batch) as (cloud, folder):
        shell = Shell.towards(
            cloud,
            folder,
            ORCHESTRATOR_DATABASE_URL=str(folder / "orchestrator.db"),
            ORCHESTRATOR_RESEND_AFTER="1",
        )
        for _ in range(times):
            before, began = asked(cloud), anyio.current_time()
            async with shell.started("run") as process:
                await until(lambda goal=before + 1: asked(cloud) >= goal)
                tally.restarts.append(anyio.current_time() - began)
                await until(lambda goal=before + 8: asked(cloud) >= goal)
                process.kill()
                await process.wait()
        assert (await shell.run("run")).code == 0
        tally.add(await _counted(cloud, folder, batch))
    tally.kills["command line, sending"] = times
    return tally
