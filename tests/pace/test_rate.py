"""Requests a second: evenly spaced, never more than allowed, in time that costs none."""

import random
from collections.abc import Iterable

import anyio
import pytest

from orchestrator.pace.rate import LEAD, Pacer, RateKey

from .instant import in_no_time

KEY = RateKey("ExportImages", "cvm.example", "default")
OTHER = RateKey("DescribeImages", "cvm.example", "default")


async def departures(pacer: Pacer, count: int, *, delays: Iterable[float] = ()) -> list[float]:
    """When so many requests leave, each after its claim has taken some time."""
    left: list[float] = []

    async def one(delay: float) -> None:
        slot = await pacer.permit(KEY)
        await anyio.sleep(delay)
        await slot.reached()
        left.append(anyio.current_time())

    given = list(delays) or [0.0] * count
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, given[number % len(given)])
    return sorted(left)


def busiest_second(times: list[float]) -> int:
    return max(sum(1 for time in times if start <= time < start + 1) for start in times)


@pytest.mark.parametrize("rate", [1, 5, 20, 100])
def test_no_second_has_more_than_the_rate(rate: int) -> None:
    """Wherever a second begins, no more than the allowance leaves within it."""
    times = in_no_time(lambda: departures(Pacer(rate), 5 * rate))
    assert busiest_second(times) <= rate


@pytest.mark.parametrize("rate", [1, 5, 20, 100])
def test_the_rate_is_used(rate: int) -> None:
    """Nearly all of the allowance is used: within three hundredths."""
    times = in_no_time(lambda: departures(Pacer(rate), 10 * rate))
    assert times[-1] - times[0] <= 10 / 0.97


def test_slow_claims_do_not_bunch_requests() -> None:
    """Commits that take their time, one more than another, bring no second over the rate."""
    chance = random.Random(7)
    delays = [chance.choice((0.0, 0.01, 0.2)) for _ in range(100)]
    times = in_no_time(lambda: departures(Pacer(20), 100, delays=delays))
    assert busiest_second(times) <= 20


def test_the_first_leaves_almost_at_once_and_no_burst_follows() -> None:
    """A fresh pacer keeps no more than the lead back, and saves up no burst while idle."""

    async def work() -> list[float]:
        pacer = Pacer(20)
        await anyio.sleep(60)
        return await departures(pacer, 3)

    first, second, third = in_no_time(work)
    assert first == pytest.approx(60 + LEAD, abs=0.001)
    assert min(second - first, third - second) > 0.03


def test_no_limit_is_no_wait() -> None:
    """A rate of 0 lets everything go when it is ready."""
    assert max(in_no_time(lambda: departures(Pacer(0), 50))) < 0.001


def test_each_key_has_its_own_allowance() -> None:
    """What one action spends, another still has."""

    async def work() -> float:
        pacer = Pacer(1)
        await pacer.permit(KEY)
        await pacer.permit(OTHER)
        return anyio.current_time()

    assert in_no_time(work) < 0.001


def test_a_refusal_pauses_the_stream() -> None:
    """Nobody gets a permit until the pause is over, whoever was waiting already."""

    async def work() -> list[float]:
        pacer = Pacer(20)
        await pacer.permit(KEY)
        assert pacer.slow_down(KEY) == 0.5
        return await departures(pacer, 3)

    assert min(in_no_time(work)) >= 0.5


def test_refusals_together_count_as_one() -> None:
    """Requests that were in the air together are refused together: one pause, not five."""

    async def work() -> list[float]:
        pacer = Pacer(20)
        await pacer.permit(KEY)
        return [pacer.slow_down(KEY) for _ in range(5)]

    assert in_no_time(work) == pytest.approx([0.5] * 5)


def test_refusals_in_a_row_pause_longer_and_an_acceptance_forgets_them() -> None:
    """The pause doubles to its longest, and begins anew once something went through."""

    async def work() -> list[float]:
        pacer = Pacer(20)
        await pacer.permit(KEY)
        pauses = []
        for _ in range(6):
            pauses.append(pacer.slow_down(KEY))
            await anyio.sleep(pauses[-1])
        pacer.accepted(KEY)
        return [*pauses, pacer.slow_down(KEY)]

    assert in_no_time(work) == [0.5, 1, 2, 4, 8, 8, 0.5]
