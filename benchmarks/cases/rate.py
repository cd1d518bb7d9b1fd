"""The request rate: how much of the vendor's limit is used, and how often it is exceeded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

from benchmarks.case import EXPORTED_ONCE, Case, Goal, Measurement
from benchmarks.cli_on_store import Store, make_image_ids
from benchmarks.cloud_and_store import start_cloud_and_store, wait_for_success, wait_until
from benchmarks.competing_client import run_competing_client
from benchmarks.latency_proxy import start_latency_proxy
from benchmarks.ledger_figures import accepted_per_second, refused, worst_second
from benchmarks.simulator_process import SimulatorProcess

_LIMIT = 20
_COUNT = 400
_NIGHTS = 3


@contextmanager
def _scene(**settings: Any) -> Iterator[tuple[SimulatorProcess, Store]]:
    """Start a cloud without a cap, and a store with 400 queued images."""
    with start_cloud_and_store(**{"cap": None, "duration": {"seconds": 1.0}, **settings}) as (
        here,
        store,
    ):
        store.enqueue(make_image_ids(_COUNT))
        yield here, store


def _figures(here: SimulatorProcess, **more: float) -> Measurement:
    requests = here.requests()
    return Measurement(
        {
            "accepted, of the limit": accepted_per_second(requests) / _LIMIT,
            "refused": refused(requests),
            "worst sliding second": worst_second(requests),
            "accepted twice": sum(one["duplicate"] for one in here.exports()),
            **more,
        }
    )


def _alone() -> Measurement:
    with _scene() as (here, store):
        used = store.drain()
        return _figures(here, **{"of one core": used["processor_seconds"] / used["seconds"]})


def _jitter(seconds: float) -> Measurement:
    latency = {"kind": "latency", "seconds": 0.0, "jitter": 2 * seconds, "action": "ExportImages"}
    with _scene(faults=[latency]) as (here, store):
        store.drain()
        return _figures(here)


def _distant(seconds: float) -> Measurement:
    """Drain over TLS with this delay in each direction."""
    with _scene() as (here, store), start_latency_proxy(here, seconds, store.folder) as variables:
        far = Store(store.folder, {**store.variables, **variables})
        used = far.drain()
        return _figures(
            here,
            **{
                "of one core": used["processor_seconds"] / used["seconds"],
            },
        )


def _typical(night: Callable[[], Measurement]) -> Measurement:
    """Return the median of each figure of several runs, because single runs vary."""
    nights = [night().figures for _ in range(_NIGHTS)]
    chart = [", ".join(f"{name} {value:.3g}" for name, value in one.items()) for one in nights]
    return Measurement({name: median(one[name] for one in nights) for name in nights[0]}, chart)


def _processes(count: int) -> Measurement:
    with _scene() as (here, store):
        wait_for_success(*[store.start("run") for _ in range(count)])
        return _figures(here)


def _restarts(times: int) -> Measurement:
    """Kill each run in the middle of its requests, and start the next."""
    with _scene() as (here, store):
        for part in range(1, times + 1):
            run = store.start("run")
            wait_until(partial(_has_sent, here, part * _COUNT // (times + 1)), run)
            run.kill()
            run.wait()
        store.drain()
        return _figures(here)


def _has_sent(here: SimulatorProcess, count: int) -> bool:
    return len(here.requests()) >= count


def _neighbour(rate: float) -> Measurement:
    """Run beside another program that uses the same account."""
    with _scene() as (here, store), run_competing_client(here, rate):
        store.drain()
        ours = [one for one in here.requests() if not one["dry_run"]]
    return Measurement({"accepted a second": accepted_per_second(ours), "refused": refused(ours)})


CASES = (
    Case(
        "rate-alone",
        "400 images, no cap",
        _alone,
        (
            Goal("accepted, of the limit", 0.97, 0.98, least=True),
            Goal("refused", 0, 0),
            Goal("worst sliding second", 22, 21),
            Goal("of one core", 0.40, 0.30),
            EXPORTED_ONCE,
        ),
    ),
    Case(
        "rate-jitter-100",
        "0-100 ms latency",
        partial(_jitter, 0.1),
        (
            Goal("accepted, of the limit", 0.95, least=True),
            Goal("refused", 0.01, 0.005),
            EXPORTED_ONCE,
        ),
    ),
    Case(
        "rate-jitter-300",
        "0-300 ms latency; the median of three runs",
        partial(_typical, partial(_jitter, 0.3)),
        (
            Goal("accepted, of the limit", 0.92, least=True),
            Goal("refused", 0.025, 0.0125),
            EXPORTED_ONCE,
        ),
    ),
    Case(
        "rate-tls-distant",
        "TLS, and 150 ms in each direction",
        partial(_distant, 0.15),
        (
            Goal("accepted, of the limit", 0.95, least=True),
            Goal("refused", 0.01),
            EXPORTED_ONCE,
        ),
    ),
    Case(
        "rate-processes",
        "4 processes on one file",
        partial(_processes, 4),
        (
            Goal("accepted, of the limit", 0.97, least=True),
            Goal("refused", 0.01, 0),
            Goal("worst sliding second", 23),
            EXPORTED_ONCE,
        ),
    ),
    Case(
        "rate-restarts",
        "killed six times in the middle",
        partial(_restarts, 6),
        (Goal("refused", 0, 0), Goal("worst sliding second", 22), EXPORTED_ONCE),
    ),
    Case(
        "rate-neighbour",
        "another program takes 10 a second of the same account; the median of three runs",
        partial(_typical, partial(_neighbour, 10)),
        (Goal("accepted a second", 8, least=True), Goal("refused", 0.1, 0.05)),
    ),
)
