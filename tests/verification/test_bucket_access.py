"""Which buckets count as unreadable, and what follows from it."""

import itertools
import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import anyio
import pytest
import sqlalchemy as sa

from orchestrator.errors import CloudRefusal
from orchestrator.limits.halted_scopes import HaltedScopes
from orchestrator.model import Halt, Scope
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.verification.bucket_access import BucketAccess, VerifyMode
from tests.instant_loop import in_no_time
from tests.job_factory import BUCKET, REGION, make_jobs, make_request

PLACE = f"{REGION}/{BUCKET}"
OTHER = "ap-tokyo/other-1250000000"
DENIED = CloudRefusal("AccessDenied", "no", http_status=403)
DOWN = CloudRefusal("SlowDown", "later", http_status=503)


def make(
    mode: VerifyMode = VerifyMode.AUTO, interval: float | None = None
) -> tuple[BucketAccess, HaltedScopes, list[str]]:
    said: list[str] = []
    stops = HaltedScopes()
    every = None if interval is None else timedelta(seconds=interval)
    return BucketAccess(mode, stops, said.append, every), stops, said


def looks(look: Callable[[], bool], seconds: int) -> list[bool]:
    """What becomes of a look each second; no time passes outside."""

    async def take() -> list[bool]:
        answers = []
        for _ in range(seconds):
            answers.append(look())
            await anyio.sleep(1)
        return answers

    return in_no_time(take)


def test_refusals_for_a_while_mean_a_lost_right() -> None:
    """After twenty seconds of nothing but refusals the bucket is unreadable, which is said once."""
    permissions, stops, said = make()
    answers = looks(partial(permissions.record_refusal, PLACE, DENIED), 30)
    assert [second for second, blinded in enumerate(answers) if blinded] == [20]
    assert permissions.unreadable.keys() == {PLACE}
    (sentence,) = said
    assert PLACE in sentence
    assert stops.active == []


def test_a_bucket_that_was_readable_is_trusted_for_longer() -> None:
    """Once seen in this run, it is two minutes of nothing but refusals that mean a lost right."""
    permissions, _, said = make()
    permissions.record_success(PLACE)
    assert looks(partial(permissions.record_refusal, PLACE, DENIED), 130).index(True) == 120
    assert len(said) == 1


def test_whoever_looks_often_finds_out_sooner() -> None:
    """Ten looks' time is enough where the user has set how often to look, and never under 5 s."""
    for interval, seconds in ((0.2, 5), (1.0, 10)):
        record_refusal = partial(make(interval=interval)[0].record_refusal, PLACE, DENIED)
        assert looks(record_refusal, 15).index(True) == seconds


def test_a_refusal_now_and_then_means_nothing() -> None:
    """A look that succeeds forgets the refusals before it, however many they were."""
    permissions, _, said = make()
    seconds = itertools.count(1)

    def look() -> bool:
        if next(seconds) % 15 == 0:
            permissions.record_success(PLACE)
            return False
        return permissions.record_refusal(PLACE, DENIED)

    assert not any(looks(look, 120))
    assert (said, permissions.unreadable) == ([], {})


def test_a_right_that_comes_back_is_noticed() -> None:
    """After a minute somebody looks again: refused, it stays as it is; else all is well again."""
    permissions, _, said = make()

    async def wait() -> None:
        for _ in range(21):
            permissions.record_refusal(PLACE, DENIED)
            await anyio.sleep(1)
        assert not permissions.may_be_readable(REGION, BUCKET)
        await anyio.sleep(60)
        assert permissions.may_be_readable(REGION, BUCKET)
        assert not permissions.record_refusal(PLACE, DENIED)
        assert not permissions.may_be_readable(REGION, BUCKET)
        await anyio.sleep(60)
        permissions.record_success(PLACE)

    in_no_time(wait)
    assert not permissions.unreadable
    assert "may be read again" in said[-1]
    assert len(said) == 2


def test_trouble_is_no_refusal() -> None:
    """A bucket that answers badly may still be read later."""
    permissions, _, _ = make()
    assert not any(looks(partial(permissions.record_refusal, PLACE, DOWN), 100))
    assert not permissions.unreadable


def test_a_bucket_that_must_be_read_stops() -> None:
    """Where verification is required, nothing more is sent to it, and to no other."""
    permissions, stops, _ = make(VerifyMode.REQUIRED)
    looks(partial(permissions.record_refusal, PLACE, DENIED), 21)
    (stop,) = stops.active
    assert (stop.scope, stop.value, stop.code) == (Scope.BUCKET, PLACE, "AccessDenied")


def test_a_stop_for_a_bucket_ends_when_it_may_be_read_again() -> None:
    """Its exports go on; a stop that its exports have met themselves is another matter."""
    permissions, stops, said = make(VerifyMode.REQUIRED)
    met = Halt(Scope.BUCKET, OTHER, "NoSuchBucket", "no", "Create it.")
    stops.add(met)
    looks(partial(permissions.record_refusal, PLACE, DENIED), 21)
    for place in (PLACE, OTHER):
        permissions.record_success(place)
    assert stops.active == [met]
    assert "may be read again" in said[-1]


@pytest.mark.anyio
async def test_what_can_be_seen_is_a_condition_on_jobs(database: Database) -> None:
    """Jobs of unreadable buckets are passed over, and all of them with verification off."""
    here, there = await make_jobs(database, [make_request(1), make_request(2, region="ap-tokyo")])

    async def visible(permissions: BucketAccess) -> list[int]:
        async with database.read() as connection:
            query = sa.select(jobs.c.id).where(permissions.readable()).order_by(jobs.c.id)
            return list((await connection.execute(query)).scalars())

    permissions, _, _ = make()
    assert await visible(permissions) == [here, there]
    permissions.unreadable[PLACE] = math.inf
    assert await visible(permissions) == [there]
    assert await visible(make(VerifyMode.OFF)[0]) == []
