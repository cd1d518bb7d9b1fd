"""``python -m benchmarks.peers``: compare other job queues with this one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import sqlalchemy as sa

from benchmarks.case import Case, Goal, Measurement, format_json, format_report
from benchmarks.cli_on_store import Store
from benchmarks.throughput import (
    Throughput,
    format_images,
    measure_throughput,
    median_throughput,
    prepare_run,
    ratio,
)
from tests.postgresql_server import find_server, fresh_database

_COUNT = 2_000
_TURNS = 3
_ON_POSTGRESQL = {"huey": False, "procrastinate": True, "pgqueuer": True}


def main() -> int:
    """Measure the peers that can run here, and print why the others cannot."""
    server = find_server()
    peers = [name for name in _ON_POSTGRESQL if _can_run(name, server)]
    case = Case(
        "peers",
        f"{_COUNT:,} images, each a durable job, no limits, nothing verified",
        partial(_measure, peers, server),
        [Goal(f"ours over {name}", 1.0, least=True) for name in peers],
    )
    measured = case.measure()
    print(format_report(case, measured), file=sys.stderr)
    print(format_json(case, measured))
    return 0 if case.is_reached(measured) else 1


def _can_run(name: str, server: sa.URL | None) -> bool:
    why = None
    if find_spec(name) is None:
        why = "it is not installed; run `make bench-peers`"
    elif _ON_POSTGRESQL[name] and server is None:
        why = "no PostgreSQL answers on 127.0.0.1:5432"
    if why is not None:
        print(f"{name} is skipped: {why}.", file=sys.stderr)
    return why is None


def _measure(peers: list[str], server: sa.URL | None) -> Measurement:
    """Measure all queues in each turn, one after another."""
    speeds: dict[str, list[Throughput]] = {name: [] for name in (*peers, "ours")}
    for _ in range(_TURNS):
        for name, those in speeds.items():
            those.append(
                measure_throughput(prepare_run, _COUNT)
                if name == "ours"
                else _speed_of(name, server)
            )
    rates = {
        f"{name}, accepted a second": median_throughput(o).per_second for name, o in speeds.items()
    }
    ratios = {f"ours over {name}": ratio(speeds["ours"], speeds[name]) for name in peers}
    return Measurement({**rates, **ratios})


def _speed_of(name: str, server: sa.URL | None) -> Throughput:
    with _place(name, server) as place:
        return measure_throughput(
            partial(_prepared, f"benchmarks.peers.with_{name}", place), _COUNT
        )


@contextmanager
def _place(name: str, server: sa.URL | None) -> Iterator[str]:
    """Yield a peer's database: its own on PostgreSQL, or a file in the store folder."""
    if server is None or not _ON_POSTGRESQL[name]:
        yield "queue.db"
        return
    with fresh_database(server) as url:
        yield url.set(drivername="postgresql").render_as_string(hide_password=False)


def _prepared(module: str, place: str, store: Store, image_ids: list[str]) -> Callable[[], object]:
    where = place if "://" in place else str(store.folder / place)
    store.python(module, where, "enqueue", given=format_images(image_ids))

    def work() -> None:
        kept = int(store.python(module, where, "work"))
        if kept != len(image_ids):
            raise RuntimeError(f"{module} stored the outcome of {kept} of {len(image_ids)}")

    return work


sys.exit(main())
