"""Which buckets count as unreadable, and what follows from it."""

import itertools
import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import anyio
import pytest
import sqlalchemy as sa

from orchestrator.cloud.error_codes import OTHER_REGION
from orchestrator.cloud.http_client import (
    ActionRequiredError,
    ProxyRefusalError,
    UntrustedCertificateError,
)
from orchestrator.errors import CloudRefusal
from orchestrator.limits.halted_scopes import HaltedScopes
from orchestrator.model import Halt, Scope
from orchestrator.settings import Settings, VerifyMode
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.verification.bucket_access import BucketAccess
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
    settings = Settings(verify=mode, verify_interval=every)
    return BucketAccess(settings, stops, said.append), stops, said


def looks(look: Callable[[], bool], seconds: int) -> list[bool]:
    """Make one look-up per second in virtual time; return their results."""

    async def take() -> list[bool]:
        answers = []
        for _ in range(seconds):
            answers.append(look())
            await anyio.sleep(1)
        return answers

    return in_no_time(take)


def test_refusals_for_a_while_make_a_bucket_unreadable() -> None:
    """Refusals alone for 20 s make a bucket unreadable; the user is notified once."""
    permissions, stops, said = make()
    answers = looks(partial(permissions.record_refusal, PLACE, DENIED), 30)
    assert [second for second, blinded in enumerate(answers) if blinded] == [20]
    assert permissions.unreadable.keys() == {PLACE}
    (sentence,) = said
    assert PLACE in sentence
    assert stops.active == []


def test_a_bucket_that_was_readable_is_trusted_for_longer() -> None:
    """A bucket that this run has read becomes unreadable after 2 min of refusals."""
    permissions, _, said = make()
    permissions.record_success(PLACE)
    assert looks(partial(permissions.record_refusal, PLACE, DENIED), 130).index(True) == 120
    assert len(said) == 1


def test_a_fixed_interval_shortens_the_time_of_refusals() -> None:
    """With a fixed interval the time is that of ten look-ups, and at least 5 s."""
    for interval, seconds in ((0.2, 5), (1.0, 10)):
        record_refusal = partial(make(interval=interval)[0].record_refusal, PLACE, DENIED)
        assert looks(record_refusal, 15).index(True) == seconds


def test_occasional_refusals_do_not_count() -> None:
    """A successful look-up resets the time of refusals."""
    permissions, _, said = make()
    seconds = itertools.count(1)

    def look() -> bool:
        if next(seconds) % 15 == 0:
            permissions.record_success(PLACE)
            return False
        return permissions.record_refusal(PLACE, DENIED)

    assert not any(looks(look, 120))
    assert (said, permissions.unreadable) == ([], {})


def test_a_restored_permission_is_noticed() -> None:
    """It is tried again every minute, and is readable again after a success."""
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


def test_a_server_error_is_not_a_refusal() -> None:
    """A bucket that answers with server errors does not become unreadable."""
    permissions, _, _ = make()
    assert not any(looks(partial(permissions.record_refusal, PLACE, DOWN), 100))
    assert not permissions.unreadable


def test_required_verification_halts_an_unreadable_bucket() -> None:
    """If verification is required, exports to this bucket are halted, and no others."""
    permissions, stops, _ = make(VerifyMode.REQUIRED)
    looks(partial(permissions.record_refusal, PLACE, DENIED), 21)
    (stop,) = stops.active
    assert (stop.scope, stop.value, stop.code) == (Scope.BUCKET, PLACE, "AccessDenied")


def test_a_halt_ends_when_the_bucket_is_readable_again() -> None:
    """A halt that was caused by an export, and not by look-ups, stays."""
    permissions, stops, said = make(VerifyMode.REQUIRED)
    met = Halt(Scope.BUCKET, OTHER, "NoSuchBucket", "no", "Create it.")
    stops.add(met)
    looks(partial(permissions.record_refusal, PLACE, DENIED), 21)
    for place in (PLACE, OTHER):
        permissions.record_success(place)
    assert stops.active == [met]
    assert "may be read again" in said[-1]


@pytest.mark.parametrize("code", ["NoSuchBucket", OTHER_REGION])
def test_a_bucket_that_is_not_here_is_halted_soon(code: str) -> None:
    """Nothing can be exported to it, so it is halted in any mode, until it is found."""
    permissions, stops, said = make()
    refusal = CloudRefusal(code, "the bucket is in ap-tokyo", http_status=404)
    assert looks(partial(permissions.record_refusal, PLACE, refusal), 8).index(True) == 5
    (stop,) = stops.active
    assert (stop.scope, stop.value, stop.code) == (Scope.BUCKET, PLACE, code)
    assert "ap-tokyo" in said[0]
    permissions.record_success(PLACE)
    assert stops.active == []


@pytest.mark.parametrize("kind", [ProxyRefusalError, UntrustedCertificateError])
def test_a_bucket_without_a_connection_is_halted_in_any_mode(
    kind: type[ActionRequiredError],
) -> None:
    """Its refused connections are no answers, and the sentence has one remedy."""
    permissions, stops, said = make()
    refusal = CloudRefusal(kind.code, "x.example: no", http_status=0)

    def fail() -> bool:
        permissions.record_failure(PLACE, "no answer")
        return False

    looks(fail, 20)
    said.clear()
    assert looks(partial(permissions.record_refusal, PLACE, refusal), 8).index(True) == 5
    (stop,) = stops.active
    assert (stop.scope, stop.value, stop.code) == (Scope.BUCKET, PLACE, kind.code)
    (sentence,) = said
    assert sentence.endswith(f"unknown jobs stay unknown. {stop.remedy}")
    assert stop.message == "x.example: no"


@pytest.mark.anyio
async def test_readable_jobs_are_a_condition_on_jobs(database: Database) -> None:
    """It excludes jobs of unreadable buckets, and all jobs if verification is off."""
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
