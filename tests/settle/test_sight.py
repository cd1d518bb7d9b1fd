"""Which buckets count as unreadable, and what follows from it."""

import anyio
import anyio.lowlevel
import pytest
import sqlalchemy as sa

from orchestrator.db import Database
from orchestrator.errors import CloudRefusal
from orchestrator.model import Scope
from orchestrator.pace.stops import Stops
from orchestrator.settle.sight import Sight, VerifyMode
from orchestrator.tables import jobs
from tests.stores import BUCKET, REGION, make_jobs, request

pytestmark = pytest.mark.anyio

PLACE = f"{REGION}/{BUCKET}"
DENIED = CloudRefusal("AccessDenied", "no", http_status=403)
DOWN = CloudRefusal("SlowDown", "later", http_status=503)


async def refuse(sight: Sight, refusal: CloudRefusal = DENIED) -> bool:
    """A look that began just now is refused."""
    await anyio.lowlevel.checkpoint()
    return sight.refused(PLACE, refusal, anyio.current_time())


def make(mode: VerifyMode = VerifyMode.AUTO) -> tuple[Sight, Stops, list[str]]:
    said: list[str] = []
    stops = Stops()
    return Sight(mode, stops, said.append), stops, said


async def test_three_refusals_in_a_row_mean_a_lost_right() -> None:
    """The third one makes the bucket unreadable, which is said once."""
    sight, stops, said = make()
    assert [await refuse(sight) for _ in range(5)] == [False, False, True, False, False]
    assert not sight.sees(REGION, BUCKET)
    assert sight.sees(REGION, "another")
    assert sight.sees("ap-tokyo", BUCKET)
    assert len(said) == 1
    assert PLACE in said[0]
    assert stops.active == []


async def test_refusals_in_between_mean_nothing() -> None:
    """A look that succeeds forgets the refusals before it."""
    sight, _, _ = make()
    for _ in range(4):
        assert not await refuse(sight)
        assert not await refuse(sight)
        sight.saw(PLACE)
    assert sight.sees(REGION, BUCKET)


async def test_looks_in_the_air_together_are_refused_together() -> None:
    """However many were under way, they count as one refusal."""
    sight, _, _ = make()
    began = anyio.current_time()
    refused = [sight.refused(PLACE, DENIED, began) for _ in range(10)]
    assert not any(refused)
    assert sight.sees(REGION, BUCKET)


async def test_trouble_is_no_refusal() -> None:
    """A bucket that answers badly may still be read later."""
    sight, _, _ = make()
    assert not any([await refuse(sight, DOWN) for _ in range(10)])
    assert sight.sees(REGION, BUCKET)


async def test_a_bucket_that_must_be_read_stops() -> None:
    """Where verification is required, nothing more is sent to it."""
    sight, stops, _ = make(VerifyMode.REQUIRED)
    for _ in range(3):
        await refuse(sight)
    (stop,) = stops.active
    assert (stop.scope, stop.value, stop.code) == (Scope.BUCKET, PLACE, "AccessDenied")


async def test_what_can_be_seen_is_a_condition_on_jobs(database: Database) -> None:
    """Jobs of unreadable buckets are passed over, and all of them with verification off."""
    here, there = await make_jobs(database, [request(1), request(2, region="ap-tokyo")])

    async def visible(sight: Sight) -> list[int]:
        async with database.read() as connection:
            query = sa.select(jobs.c.id).where(sight.visible()).order_by(jobs.c.id)
            return list((await connection.execute(query)).scalars())

    sight, _, _ = make()
    assert await visible(sight) == [here, there]
    sight.blind.add(PLACE)
    assert await visible(sight) == [there]
    assert await visible(make(VerifyMode.OFF)[0]) == []
