"""The bounds that a benchmark holds its exports against."""

from typing import Any

import pytest

from benchmarks.ledger_figures import bound, tail, unhindered

# two places; the second ends at 30, the first at 50, the third, in the second's place, at 60
EXPORTS: list[dict[str, Any]] = [
    {"accepted_at": 0.0, "ends_at": 50.0},
    {"accepted_at": 1.0, "ends_at": 30.0},
    {"accepted_at": 35.0, "ends_at": 60.0},
]


def test_the_bound_is_the_work_over_the_places() -> None:
    """Whatever the order, all places are at work until the last end; the rate delays the first."""
    assert bound(EXPORTS, 2) == pytest.approx((50 + 29 + 25) / 2)
    assert bound(EXPORTS, 2, rate=0.5) == pytest.approx((50 + 29 + 25 + 2) / 2)


def test_the_longest_export_is_a_bound() -> None:
    """More places than the others need do not help it."""
    assert bound(EXPORTS, 3) == 50


def test_an_order_has_a_time_of_its_own() -> None:
    """Each export takes the first place that is free, at once."""
    assert unhindered(EXPORTS, 2) == 54


def test_the_tail_begins_with_the_last_acceptance() -> None:
    """From then on nothing is left to take a place that is free."""
    assert tail(EXPORTS, 2) == 10
