"""The circuit breaker of an endpoint, in virtual time."""

import anyio

from orchestrator.limits.circuit_breaker import CircuitBreaker
from tests.instant_loop import in_no_time


def opened() -> CircuitBreaker:
    breaker = CircuitBreaker(30)
    assert breaker.record_failure()
    return breaker


async def admitted(breaker: CircuitBreaker, count: int, within: float) -> list[float]:
    """Return the times at which waiting requests are admitted.

    Args:
        count: number of requests that wait.
        within: seconds after which the requests that still wait are cancelled.
    """
    times: list[float] = []

    async def one() -> None:
        await breaker.wait_until_admitted()
        times.append(anyio.current_time())

    with anyio.move_on_after(within):
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(one)
    return times


def test_a_closed_circuit_admits_everything_at_once() -> None:
    """Before the first failure no request waits."""
    times = in_no_time(lambda: admitted(CircuitBreaker(30), 10, 1))
    assert len(times) == 10
    assert max(times) < 0.001


def test_an_open_circuit_admits_one_probe() -> None:
    """All other requests wait for its result."""

    async def work() -> list[float]:
        return await admitted(opened(), 10, 30)

    (alone,) = in_no_time(work)
    assert 0.5 <= alone <= 1.0


def test_a_probe_without_a_result_is_replaced() -> None:
    """It holds the others up for a little longer than a request may take."""

    async def work() -> list[float]:
        return await admitted(opened(), 3, 60)

    first, second = in_no_time(work)
    assert 30 < second - first < 40


def test_each_failed_probe_delays_the_next_one() -> None:
    """The waits grow up to half a minute."""

    async def work() -> list[float]:
        breaker, waits = CircuitBreaker(30), []
        for _ in range(10):
            breaker.record_failure()
            before = anyio.current_time()
            await breaker.wait_until_admitted()
            waits.append(anyio.current_time() - before)
        return waits

    waits = in_no_time(work)
    assert waits[0] <= 1.0
    assert max(waits) <= 30.5
    assert waits[-1] >= 15.0


def test_the_longest_wait_can_be_limited() -> None:
    """Failures that say little do not delay the next probe for half a minute."""

    async def work() -> list[float]:
        breaker, waits = CircuitBreaker(30), []
        for _ in range(10):
            breaker.record_failure(longest=5.0)
            before = anyio.current_time()
            await breaker.wait_until_admitted()
            waits.append(anyio.current_time() - before)
        return waits

    assert max(in_no_time(work)) <= 5.5


def test_any_answer_closes_the_circuit() -> None:
    """All waiting requests are admitted."""

    async def work() -> list[float]:
        breaker = opened()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(admitted, breaker, 5, 60)
            await anyio.sleep(0.2)
            assert breaker.record_success()
        assert not breaker.is_open
        assert not breaker.record_success()
        return await admitted(breaker, 5, 1)

    assert max(in_no_time(work)) < 1.0


def test_tolerated_failures_do_not_open_the_circuit() -> None:
    """Only failures in a row count, and only the one too many reports that it opened."""

    async def work() -> None:
        breaker = CircuitBreaker(30)
        for _ in range(2):
            assert [breaker.record_failure(tolerated=4) for _ in range(4)] == 4 * [False]
            breaker.record_success()
        reports = [breaker.record_failure(tolerated=4) for _ in range(7)]
        assert reports == [False, False, False, False, True, False, False]
        assert breaker.is_open

    in_no_time(work)


def test_admit_chooses_one_probe_without_waiting() -> None:
    """No probe is admitted before the last one has a result or was released."""

    async def work() -> None:
        breaker = CircuitBreaker(30)
        assert all(breaker.admit() for _ in range(5))
        breaker.record_failure()
        assert not breaker.admit()
        await anyio.sleep(1)
        assert [breaker.admit() for _ in range(5)] == [True, False, False, False, False]
        breaker.release()
        assert [breaker.admit() for _ in range(2)] == [True, False]
        breaker.record_failure()
        await anyio.sleep(0.5)
        assert not breaker.admit()
        breaker.record_success()
        assert breaker.admit()

    in_no_time(work)
