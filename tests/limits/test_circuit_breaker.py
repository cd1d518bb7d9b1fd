"""An endpoint that cannot be reached, in time that costs none."""

import anyio

from orchestrator.limits.circuit_breaker import CircuitBreaker
from tests.limits.instant import in_no_time


async def passes(breaker: CircuitBreaker, count: int, within: float) -> list[float]:
    """When so many who wait are let through, as far as they are."""
    times: list[float] = []

    async def one() -> None:
        await breaker.wait_until_admitted()
        times.append(anyio.current_time())

    with anyio.move_on_after(within):
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(one)
    return times


def test_a_reachable_endpoint_holds_nobody_up() -> None:
    """Before anything is lost, everyone passes at once."""
    times = in_no_time(lambda: passes(CircuitBreaker(), 10, 1))
    assert len(times) == 10
    assert max(times) < 0.001


def test_one_request_at_a_time_finds_out() -> None:
    """After a loss one prober passes, and everyone else waits for what it finds."""

    async def work() -> list[float]:
        breaker = CircuitBreaker()
        breaker.record_failure()
        assert breaker.is_open
        return await passes(breaker, 10, 30)

    (alone,) = in_no_time(work)
    assert 0.5 <= alone <= 1.0


def test_a_prober_that_never_reports_is_replaced() -> None:
    """Whoever is lost on the way holds the others up for a little longer than a request."""

    async def work() -> list[float]:
        breaker = CircuitBreaker()
        breaker.record_failure()
        return await passes(breaker, 3, 60)

    first, second = in_no_time(work)
    assert 30 < second - first < 40


def test_each_loss_makes_the_next_probe_later() -> None:
    """The waits grow, and none is longer than half a minute."""

    async def work() -> list[float]:
        breaker, deferrals = CircuitBreaker(), []
        for _ in range(10):
            breaker.record_failure()
            before = anyio.current_time()
            await breaker.wait_until_admitted()
            deferrals.append(anyio.current_time() - before)
        return deferrals

    deferrals = in_no_time(work)
    assert deferrals[0] <= 1.0
    assert max(deferrals) <= 30.5
    assert deferrals[-1] >= 15.0


def test_any_answer_lets_everyone_go_on() -> None:
    """Once the endpoint has answered, whatever it said, all who wait are let through."""

    async def work() -> list[float]:
        breaker = CircuitBreaker()
        breaker.record_failure()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(passes, breaker, 5, 60)
            await anyio.sleep(0.2)
            breaker.record_success()
        assert not breaker.is_open
        return await passes(breaker, 5, 1)

    assert max(in_no_time(work)) < 1.0


def test_who_does_not_wait_is_told_who_may_go() -> None:
    """In an outage one of those who ask is the prober, and the next not before it has reported."""

    async def work() -> None:
        breaker = CircuitBreaker()
        assert all(breaker.admit() for _ in range(5))
        breaker.record_failure()
        assert not breaker.admit()
        await anyio.sleep(1)
        assert [breaker.admit() for _ in range(5)] == [True, False, False, False, False]
        breaker.record_failure()
        await anyio.sleep(0.5)
        assert not breaker.admit()
        breaker.record_success()
        assert breaker.admit()

    in_no_time(work)
