"""A long queue without limits: the cost of durability, compared with calls that store nothing."""

from collections.abc import Callable
from functools import partial

from benchmarks.case import Case, Goal, Measurement
from benchmarks.cli_on_store import Store
from benchmarks.throughput import (
    SCOPES,
    format_images,
    measure_throughput,
    median_throughput,
    prepare_run,
    ratio,
)

_COUNT = 5_000
_TURNS = 3


def _measure(count: int, turns: int) -> Measurement:
    """Measure one process each, with the same scopes, in turn.

    Comparing with calls through the HTTP client of a run shows the cost of durability alone.
    """
    senders = (partial(_bare, "httpx"), partial(_bare, "ours"), prepare_run)
    rounds = [[measure_throughput(sender, count) for sender in senders] for _ in range(turns)]
    bare, alike, own = [list(side) for side in zip(*rounds, strict=True)]
    named = {"bare": bare, "bare over our transport": alike, "ours": own}
    return Measurement(
        {
            "scopes": len(SCOPES),
            **{
                f"{name}, a second": median_throughput(side).per_second
                for name, side in named.items()
            },
            **{
                f"{name}, ms an image": median_throughput(side).milliseconds
                for name, side in named.items()
            },
            "ours, of bare": ratio(own, bare),
            "ours, of bare over our transport": ratio(own, alike),
        }
    )


def _bare(way: str, store: Store, image_ids: list[str]) -> Callable[[], object]:
    return partial(store.python, "benchmarks.direct_calls", way, given=format_images(image_ids))


CASES = (
    Case(
        "drain",
        "5,000 images over 20 scopes, no limits, nothing verified",
        partial(_measure, _COUNT, _TURNS),
        (Goal("ours, of bare", 0.5, 0.6, least=True),),
    ),
)
