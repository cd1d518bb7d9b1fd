"""A long queue at full speed: what it costs to lose nothing, beside calls that keep nothing."""

from collections.abc import Callable
from functools import partial

from benchmarks.figures import Case, Goal, Measured
from benchmarks.speed import SCOPES, lines, ours, ratio, speed, typical
from benchmarks.store import Store

_COUNT = 5_000
_TURNS = 3


def _measure(count: int, turns: int) -> Measured:
    """One process each, over the same scopes, in turn."""
    pairs = [(speed(_bare, count), speed(ours, count)) for _ in range(turns)]
    bare, own = [list(side) for side in zip(*pairs, strict=True)]
    return Measured(
        {
            "scopes": len(SCOPES),
            "bare, accepted a second": typical(bare).per_second,
            "ours, accepted a second": typical(own).per_second,
            "ours, of bare": ratio(own, bare),
            "bare, processor's ms an image": typical(bare).milliseconds,
            "ours, processor's ms an image": typical(own).milliseconds,
        },
        [f"bare {b.per_second:.0f}/s, then ours {o.per_second:.0f}/s" for b, o in pairs],
    )


def _bare(store: Store, image_ids: list[str]) -> Callable[[], object]:
    return partial(store.python, "benchmarks.bare", given=lines(image_ids))


CASES = (
    Case(
        "drain",
        "5,000 images over 20 scopes, no limits, nothing verified",
        partial(_measure, _COUNT, _TURNS),
        (Goal("ours, of bare", 0.5, 0.6, least=True),),
    ),
)
