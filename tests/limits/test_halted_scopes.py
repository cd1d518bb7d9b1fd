"""When a refusal begins a stop, and what the stop holds up."""

import anyio
import pytest

from orchestrator.cloud.error_codes import code_for
from orchestrator.limits.halted_scopes import HaltedScopes
from orchestrator.model import Halt, Scope
from tests.limits.instant import in_no_time

BUCKET_GONE = "InvalidParameterValue.BucketNotFound"
CLOCK = "AuthFailure.SignatureExpire"
TOKEN = "AuthFailure.TokenFailure"
DENIED = "AuthFailure.UnauthorizedOperation"


def stop(name: str, value: str = "x", message: str = "no") -> Halt:
    code = code_for(name)
    assert code.scope is not None
    return Halt(code.scope, value, name, message, code.remedy)


def hear(
    stops: HaltedScopes, name: str, *, claimed: float, heard: float, job: int = 1, **fields: str
) -> bool:
    """Whether a refusal begins a stop, claimed and heard so many seconds after some moment."""

    async def then() -> bool:
        await anyio.sleep_until(heard)
        return stops.record_refusal(
            stop(name, **fields), code_for(name), job_id=job, asked_at=claimed
        )

    return in_no_time(then)


def test_a_plain_refusal_stops_at_once() -> None:
    """A missing bucket is missing for the next request too."""
    stops = HaltedScopes()
    assert hear(stops, BUCKET_GONE, claimed=0, heard=1)
    assert stops.active == [stop(BUCKET_GONE)]


@pytest.mark.parametrize("name", [CLOCK, TOKEN, DENIED])
def test_what_may_be_mended_stops_the_second_time(name: str) -> None:
    """Clock, token and a single image's policy get one more request, claimed after the first."""
    stops = HaltedScopes()
    assert not hear(stops, name, claimed=0, heard=1)
    assert not hear(stops, name, claimed=0.5, heard=2)
    assert stops.active == []
    assert hear(stops, name, claimed=1.5, heard=3, job=2)
    assert [held.code for held in stops.active] == [name]


def test_one_image_denied_again_and_again_stops_nobody_else() -> None:
    """A policy against a single image is no reason to stop the account."""
    stops = HaltedScopes()
    for second in range(5):
        assert not hear(stops, DENIED, claimed=2 * second, heard=2 * second + 1, job=7)
    assert hear(stops, DENIED, claimed=20, heard=21, job=8)


def test_a_lifted_stop_may_begin_again() -> None:
    """After a while everything is tried afresh, and what is not mended stops again."""
    stops = HaltedScopes()
    assert hear(stops, BUCKET_GONE, claimed=0, heard=1)
    stops.clear()
    assert stops.active == []
    assert hear(stops, BUCKET_GONE, claimed=2, heard=3)


def test_an_acceptance_shows_that_it_was_mended() -> None:
    """After something went through, the next refusal is a first one again."""
    stops = HaltedScopes()
    assert not hear(stops, CLOCK, claimed=0, heard=1)
    stops.record_acceptance()
    assert not hear(stops, CLOCK, claimed=2, heard=3)
    assert hear(stops, CLOCK, claimed=4, heard=5)


def test_suspicions_are_apart() -> None:
    """A wrong clock says nothing about the token."""
    stops = HaltedScopes()
    assert not hear(stops, CLOCK, claimed=0, heard=1)
    assert not hear(stops, TOKEN, claimed=2, heard=3)


def test_a_stop_begins_once() -> None:
    """What is stopped already is not told again, in whatever words the vendor repeats it."""
    stops = HaltedScopes()
    assert hear(stops, BUCKET_GONE, claimed=0, heard=1, message="request 1: no such bucket")
    assert not hear(stops, BUCKET_GONE, claimed=0, heard=2, message="request 2: no such bucket")
    assert hear(stops, BUCKET_GONE, claimed=0, heard=3, value="another")
    assert len(stops.active) == 2


@pytest.mark.parametrize(
    ("scope", "value", "holds"),
    [
        (Scope.CREDENTIAL, "default", True),
        (Scope.ACCOUNT, "default", True),
        (Scope.CLOCK, "default", True),
        (Scope.ENDPOINT, "cvm.example", True),
        (Scope.ENDPOINT, "other.example", False),
        (Scope.REGION, "ap-tokyo", False),
        (Scope.BUCKET, "ap-tokyo/b", False),
        (Scope.ROLE, "Writer", False),
    ],
)
def test_some_stops_hold_up_an_endpoint_whole(scope: Scope, value: str, holds: bool) -> None:
    """Keys, account and clock concern everything; an endpoint itself; the rest only its own."""
    stops = HaltedScopes()
    assert not stops.blocks_endpoint("cvm.example")
    stops.active.append(Halt(scope, value, "Code", "message", "remedy"))
    assert stops.blocks_endpoint("cvm.example") is holds
