"""A long queue at full speed: what it costs to lose nothing, beside calls that keep nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import median
from typing import Any

from benchmarks.arrivals import accepted_per_second
from benchmarks.calls import IN_AIR
from benchmarks.figures import Case, Goal, Measured
from benchmarks.scene import scene
from benchmarks.store import Store, images, processor_seconds
from orchestrator.simulator.regions import FINANCE_REGIONS, REGIONS

_SCOPES = (*REGIONS, *FINANCE_REGIONS)
_COUNT = 5_000
_TURNS = 3

UNBOUNDED: dict[str, Any] = {
    "cap": None,
    "limits": {"ExportImages": 0, "DescribeImages": 0},
    "duration": {"seconds": 1.0},
}
"""Settings of a cloud that refuses nothing."""


@dataclass(frozen=True)
class _Speed:
    """What the cloud's ledger says, and what the sender's process took for each image."""

    per_second: float
    milliseconds: float


def run_unbounded(store: Store) -> float:
    """Drains what is enqueued with nothing but itself to wait for; the processor's seconds."""
    how = ("--rate", "0", "--verify", "off", "--concurrency", str(IN_AIR))
    return float(store.drain(*how)["processor_seconds"])


def _measure(count: int, turns: int) -> Measured:
    """One process each, in turn, because a machine is not equally fast at all times."""
    pairs = [(_speed(_bare, count), _speed(_ours, count)) for _ in range(turns)]
    bare, ours = (
        _Speed(median(one.per_second for one in side), median(one.milliseconds for one in side))
        for side in zip(*pairs, strict=True)
    )
    return Measured(
        {
            "scopes": len(_SCOPES),
            "bare, accepted a second": bare.per_second,
            "ours, accepted a second": ours.per_second,
            "ours, of bare": ours.per_second / bare.per_second,
            "bare, processor's ms an image": bare.milliseconds,
            "ours, processor's ms an image": ours.milliseconds,
        },
        [f"bare {b.per_second:.0f}/s, then ours {o.per_second:.0f}/s" for b, o in pairs],
    )


def _speed(send: Callable[[Store, list[str]], float], count: int) -> _Speed:
    with scene(**UNBOUNDED) as (here, store):
        seconds = send(store, images(count))
        return _Speed(accepted_per_second(here.requests()), 1000 * seconds / count)


def _bare(store: Store, image_ids: list[str]) -> float:
    before = processor_seconds()
    rows = zip(image_ids, cycle(_SCOPES), strict=False)
    store.python("benchmarks.bare", given="\n".join(map(",".join, rows)))
    return processor_seconds() - before


def _ours(store: Store, image_ids: list[str]) -> float:
    store.enqueue(image_ids, *_SCOPES)
    return run_unbounded(store)


CASES = (
    Case(
        "drain",
        "5,000 images over 20 regions, no limits, nothing verified",
        partial(_measure, _COUNT, _TURNS),
        (Goal("ours, of bare", 0.5, 0.6, least=True),),
    ),
)
