"""When a probe of a suspected scope is due, in virtual time."""

from collections.abc import Callable

import anyio
import pytest

from orchestrator.limits.suspected_scopes import SuspectedScopes
from orchestrator.model import Scope
from tests.instant_loop import in_no_time

ROLE = {Scope.ROLE: "Writer"}
OTHER_ROLE = {Scope.ROLE: "Reader"}


def suspected() -> SuspectedScopes:
    """Return scopes of which one role was refused once."""
    scopes = SuspectedScopes()
    scopes.suspect(Scope.ROLE, "Writer")
    return scopes


def test_nothing_is_due_where_nothing_was_refused() -> None:
    """A claim then asks for no probe."""
    assert not SuspectedScopes().is_probe_due


def test_refused_probes_follow_at_growing_intervals() -> None:
    """At most one second passes before the first, two before the second, and so on."""

    async def work() -> list[float]:
        scopes, times = suspected(), list[float]()
        while anyio.current_time() < 15:
            if scopes.is_probe_due:
                times.append(anyio.current_time())
                scopes.begin_probe(ROLE)
                scopes.suspect(Scope.ROLE, "Writer")
            await anyio.sleep(0.01)
        return times

    times = in_no_time(work)
    assert 4 <= len(times) <= 5
    assert 0.5 <= times[0] <= 1.1


async def begin_probe(scopes: SuspectedScopes) -> None:
    """Wait until a probe is due, and begin it."""
    await anyio.sleep(1)
    assert scopes.is_probe_due
    scopes.begin_probe(ROLE | {Scope.REGION: "ap-tokyo"})
    assert not scopes.is_probe_due


@pytest.mark.parametrize(
    ("change", "is_due"),
    [
        (lambda scopes: scopes.end_probe(ROLE), True),
        (lambda scopes: scopes.end_probe(OTHER_ROLE), False),
        (lambda scopes: scopes.remove(OTHER_ROLE), False),
    ],
    ids=["a probe without a result", "a request in another scope", "another scope accepted"],
)
def test_one_probe_at_a_time(change: Callable[[SuspectedScopes], None], *, is_due: bool) -> None:
    """The next one waits for the result of the first, not for those of other requests."""

    async def work() -> bool:
        scopes = suspected()
        await begin_probe(scopes)
        change(scopes)
        return scopes.is_probe_due

    assert in_no_time(work) is is_due


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
