"""When a probe of a suspected scope is due, in virtual time."""

from collections.abc import Callable

import anyio
import pytest

from orchestrator.limits.suspected_scopes import SuspectedScopes
from orchestrator.model import Scope
from tests.instant_loop import in_no_time

ROLE = {Scope.ROLE: "Writer"}
OTHER_ROLE = {Scope.ROLE: "Reader"}
JOB, OTHER_JOB = 1, 2


def suspected() -> SuspectedScopes:
    """Return scopes of which one role was refused once."""
    scopes = SuspectedScopes(30)
    scopes.suspect(Scope.ROLE, "Writer")
    return scopes


def test_nothing_is_due_where_nothing_was_refused() -> None:
    """A claim then asks for no probe."""
    assert not SuspectedScopes(30).is_probe_due


def test_several_probes_are_refused_before_a_halt() -> None:
    """Six probes are sent in the five seconds that a halt takes.

    If one in ten requests is refused at random, the scope must not be halted.
    """

    async def work() -> list[float]:
        scopes, times = suspected(), list[float]()
        while anyio.current_time() < 5:
            if scopes.is_probe_due:
                times.append(anyio.current_time())
                scopes.begin_probe(ROLE, JOB)
                scopes.suspect(Scope.ROLE, "Writer")
                scopes.end_probe(ROLE, JOB)
            await anyio.sleep(0.01)
        return times

    assert len(in_no_time(work)) == 6


async def begin_probe(scopes: SuspectedScopes) -> None:
    """Wait until a probe is due, and begin it."""
    await anyio.sleep(1)
    assert scopes.is_probe_due
    scopes.begin_probe(ROLE | {Scope.REGION: "ap-tokyo"}, JOB)
    assert not scopes.is_probe_due


@pytest.mark.parametrize(
    ("change", "is_due"),
    [
        (lambda scopes: scopes.end_probe(ROLE, JOB), True),
        (lambda scopes: scopes.end_probe(ROLE, OTHER_JOB), False),
        (lambda scopes: scopes.suspect(Scope.ROLE, "Writer"), False),
        (lambda scopes: scopes.end_probe(OTHER_ROLE, JOB), False),
        (lambda scopes: scopes.remove(OTHER_ROLE), False),
    ],
    ids=["the probe", "another request", "a refusal", "another scope", "another scope accepted"],
)
def test_one_probe_at_a_time(change: Callable[[SuspectedScopes], None], *, is_due: bool) -> None:
    """The next probe waits for the result of the first, not of other requests."""

    async def work() -> bool:
        scopes = suspected()
        await begin_probe(scopes)
        change(scopes)
        await anyio.sleep(1)
        return scopes.is_probe_due

    assert in_no_time(work) is is_due


def test_a_probe_without_a_result_is_replaced() -> None:
    """Otherwise nothing would be sent in the scope for the rest of the run."""

    async def work() -> list[bool]:
        scopes, found = suspected(), list[bool]()
        await begin_probe(scopes)
        for seconds in (34, 2):
            await anyio.sleep(seconds)
            found.append(scopes.is_probe_due)
        return found

    assert in_no_time(work) == [False, True]


def test_a_probe_that_no_job_can_be_is_postponed() -> None:
    """Each claim would otherwise look for one first."""

    async def work() -> list[bool]:
        scopes = suspected()
        await anyio.sleep(1)
        scopes.postpone_probes()
        found = [scopes.is_probe_due]
        await anyio.sleep(1)
        return [*found, scopes.is_probe_due]

    assert in_no_time(work) == [False, True]


@pytest.mark.parametrize(
    "change",
    [lambda scopes: scopes.remove(ROLE), lambda scopes: scopes.clear()],
    ids=["accepted or halted", "cleared"],
)
def test_a_scope_that_is_not_suspected_needs_no_probe(
    change: Callable[[SuspectedScopes], None],
) -> None:
    """Its jobs are sent as usual."""

    async def work() -> bool:
        scopes = suspected()
        await anyio.sleep(1)
        change(scopes)
        return scopes.is_probe_due

    assert not in_no_time(work)
