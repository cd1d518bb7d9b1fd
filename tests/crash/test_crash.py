"""Processes that die at the worst moments: no image is lost, and none is exported twice.

A short form of what `make crash` does a thousand times.
"""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from orchestrator.simulator import DEFAULT_KEY, Duration, Settings, Simulator, SimulatorOptions
from tests.crash.life import Death, Life
from tests.crash.night import KINDS, Kill, Night, kills_of, spend
from tests.crash.processes import Zygote, zygote
from tests.crash.tally import Tally, count, secrets_in
from tests.end_to_end.scene import images, jobs_of, orchestrator_at, orders, requests, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mother(anyio_backend: str) -> AsyncIterator[Zygote]:
    """A process that gives birth to others."""
    async with zygote() as running:
        yield running


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
async def test_killed_and_started_again(mother: Zygote, kind: str) -> None:
    """Under a cloud that is full and loses answers two die, and the third ends all well."""
    chance = random.Random(kind)
    kills = [kills_of(kind, chance) for _ in range(2)]
    tally = await spend(Night(kills, exports=24, capped=True, losing=True), mother)
    assert tally.holds, tally.figures()
    assert tally.kills[kind] == 2


@pytest.mark.parametrize("number", [1, 2, 3, 5, 13, 34])
async def test_killed_in_place_of_a_commit(mother: Zygote, number: int) -> None:
    """Whichever commit a process dies at, the next one goes on from what was committed.

    Answers that come together share a commit, so a life may have fewer commits than the number;
    then another life is killed at an earlier commit.
    """
    night = Night([Kill("commit", Death(number))], exports=12)
    tally = await spend(night, mother)
    assert tally.holds, tally.figures()
    assert tally.kills["commit"] == 1


@pytest.mark.parametrize("kind", ["answer in hand", "in flight"])
async def test_killed_over_a_server(mother: Zygote, postgresql_url: str, kind: str) -> None:
    """On PostgreSQL, too, a dead process is known to be dead at once, and nothing is lost."""
    kills = [kills_of(kind, random.Random(kind)) for _ in range(2)]
    settings = {"database_url": postgresql_url}
    # under a cap answers come in many groups, however quick the machine is
    night = Night(kills, exports=24, capped=True, losing=True, settings=settings)
    tally = await spend(night, mother)
    assert tally.holds, tally.figures()
    assert tally.kills[kind] == 2


async def test_two_processes_share_one_store(mother: Zygote, tmp_path: Path) -> None:
    """Two at once on one file send each image once between them; a dead one's lock is cleared."""
    batch = images(130)
    settings = Settings(cap=6, limits={}, duration=Duration(seconds=0.3), queue_delay=0.02)
    async with Simulator(SimulatorOptions(settings=settings)) as cloud, zygote() as other_mother:
        async with orchestrator_at(cloud.url, tmp_path) as orchestrator:
            await orchestrator.enqueue(orders(batch))
        life = Life(cloud.url, tmp_path)
        async with mother.child(life) as one, other_mother.child(life) as other:
            await until(lambda: len(requests(cloud, "HeadObject")) >= 5)
            one.kill()
            assert await one.ended() < 0
            with anyio.fail_after(300):
                assert await other.ended() == 0
        async with orchestrator_at(cloud.url, tmp_path) as orchestrator:
            tally = count(batch, cloud.ledger, await jobs_of(orchestrator))
    assert tally.holds, tally.figures()
    assert not [left async for left in anyio.Path(tmp_path).glob("*.alive-*")]


async def test_the_count_sees_what_is_wrong(tmp_path: Path) -> None:
    """A lost image, a doubled one, an unsettled job and a wrong one are each counted."""
    async with Simulator(SimulatorOptions(settings=Settings(limits={}))) as cloud:
        async with orchestrator_at(cloud.url, tmp_path) as orchestrator:
            await orchestrator.enqueue(orders(images(3)))
            await orchestrator.run()
            found = await jobs_of(orchestrator)
            await orchestrator.enqueue(orders(images(1, first=3)))
            queued = (await jobs_of(orchestrator))[-1]
        entries = list(cloud.ledger)
    export = next(entry for entry in entries if entry.accepted)
    assert count(images(3), entries, found).holds
    assert count(images(3), [*entries, export], found).twice == 1
    assert count(images(4), entries, found).lost == 1
    assert count(images(4), entries, [*found, queued]).unsettled == 1
    without = [entry for entry in entries if entry is not export]
    assert count(images(3), without, found).disagreeing == 1


def test_the_search_finds_a_secret(tmp_path: Path) -> None:
    """A key in a file makes the figures bad, wherever in the folder it lies."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "out.txt").write_text(f"key={DEFAULT_KEY.secret_key}!")
    assert secrets_in(tmp_path) == 1
    assert not Tally(secrets=1).holds
