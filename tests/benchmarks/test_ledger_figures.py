"""The lower bounds with which benchmarks compare the duration of exports."""

from typing import Any

import pytest

from benchmarks.ledger_figures import bound, tail, unhindered

# two slots: the exports end at 50, 30 and 60; the third one uses the slot of the second
EXPORTS: list[dict[str, Any]] = [
    {"accepted_at": 0.0, "ends_at": 50.0},
    {"accepted_at": 1.0, "ends_at": 30.0},
    {"accepted_at": 35.0, "ends_at": 60.0},
]


def test_the_bound_is_the_work_divided_by_the_slots() -> None:
    """The bound is the work divided by the slots, in whatever order exports run.

    All slots are busy until the last end. The rate delays the first request of each slot.
    """
    assert bound(EXPORTS, 2) == pytest.approx((50 + 29 + 25) / 2)
    assert bound(EXPORTS, 2, rate=0.5) == pytest.approx((50 + 29 + 25 + 2) / 2)


def test_the_longest_export_is_a_bound() -> None:
    """More slots than the other exports need do not make it shorter."""
    assert bound(EXPORTS, 3) == 50


def test_unhindered_time_depends_on_the_order() -> None:
    """Each export takes the first free slot at once."""
    assert unhindered(EXPORTS, 2) == 54


def test_the_tail_begins_with_the_last_acceptance() -> None:
    """After it no export is left that could take a free slot."""
    assert tail(EXPORTS, 2) == 10
