"""Run a batch in virtual time against a vendor that differs from its documents, and judge it.

All counts come from the simulator's own exports and requests, and are compared with the states in
the store; nothing that the program says about the vendor is believed.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, patch

import anyio
import httpx

from benchmarks.in_memory_transport import InMemoryTransport
from benchmarks.virtual import VirtualClock, in_virtual_time
from orchestrator import orchestrator as facade
from orchestrator.cli.exit_codes import exit_code_of_run
from orchestrator.cli.run import summary
from orchestrator.cloud.http_client import HttpClient
from orchestrator.job_states import FINAL, JobState
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import JobFilter
from orchestrator.reporting.history import Job, JobDetails
from orchestrator.reporting.run_summary import RunResult
from orchestrator.settings import load_settings
from orchestrator.simulator import Duration, Export, Fault, Settings, SimulatorOptions
from orchestrator.simulator.cloud import Clocks, Cloud
from orchestrator.verification import poller
from orchestrator.worker import image_describer, maintenance, run_setup, worker
from tests.end_to_end.harness import make_credential_variables, make_image_ids

IMAGES = 40
BUCKET, REGION, OTHER_REGION = "backup-1250000000", "ap-singapore", "ap-tokyo"

LOST = (
    Fault("reset", action="ExportImages", after=True, chance=0.05),
    Fault("hang", action="ExportImages", after=True, chance=0.03),
)
"""8 % of the answers are lost after the export has begun."""

_DURATION = Duration("uniform", seconds=150.0, spread=0.3)
_DEADLINE = 5400.0
_QUIET_LIMIT = 3900.0
"""Seconds without a request, a finished job or a sentence, after which a run is silent. Exports can
really take an hour, so a sentence cannot be expected earlier."""

_LONGEST = 14_400.0
"""Seconds after which a run is stopped."""

_MIN_PAUSE = timedelta(seconds=5)
_SAMPLE = 120.0
_NO_DISK = 1 << 20
"""Bytes; a disk has more."""

_RETRIES = 10
"""Maximum number of runs after the first, each after the retry of all jobs that failed: the last
run must not leave a failure that no operator has seen."""
_MASS = 5
"""More good jobs that fail without an export than a person could repeat by hand."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """One way in which a vendor differs from its documents.

    Args:
        differs: what differs, in one sentence.
        vendor: settings of the simulator, without the lost answers.
        images_per_job: images of one request.
        request: fields of every `ExportRequest`.
        regions: the regions over which the jobs are spread.
        retries: an operator retries the failed jobs after the run and runs again, several times.
    """

    name: str
    area: str
    differs: str
    vendor: Mapping[str, Any] = field(default_factory=dict)
    images_per_job: int = 1
    request: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple[str, ...] = (REGION,)
    retries: bool = False

    @property
    def settings(self) -> Settings:
        """The settings of the simulator."""
        given = {"duration": _DURATION, "queue_delay": 2.0, "cap": 10, **self.vendor}
        return Settings(**{**given, "faults": (*given.get("faults", ()), *LOST)})

    def requests(self) -> list[ExportRequest]:
        """Return the jobs to enqueue."""
        ids, size = make_image_ids(IMAGES), self.images_per_job
        groups = [tuple(ids[start : start + size]) for start in range(0, IMAGES, size)]
        return [
            ExportRequest(
                group, region=self.regions[n % len(self.regions)], bucket=BUCKET, **self.request
            )
            for n, group in enumerate(groups)
        ]


@dataclass(frozen=True)
class Harm:
    """What must not happen, as the names of images or jobs.

    Args:
        twice: images with a second export although the first was good, or may have been.
        falsely: verified jobs whose own objects were not all complete at that moment, or that
            count an object of somebody else as theirs.
        failed: failed jobs whose export was good.
        en_masse: more than a few good jobs that failed and were never exported.
        silent: jobs that stood still without a word, or that a run left without a reason.
    """

    twice: tuple[str, ...] = ()
    falsely: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    en_masse: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {name: len(found) for name, found in vars(self).items()}

    def __bool__(self) -> bool:
        return any(self.counts.values())


@dataclass(frozen=True)
class Observation:
    """What was seen of a run: the simulator's side, the store's and the user's.

    Args:
        skew: seconds by which the server's clock was ahead.
        sentences: what the program printed, with the time in seconds since the start.
        stalls: the jobs that stood still, with no word about it.
    """

    skew: float
    exports: Sequence[Export]
    jobs: Sequence[JobDetails]
    sentences: Sequence[tuple[float, str]]
    stalls: Sequence[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Outcome:
    """One row of the table.

    Args:
        seconds: virtual time of the run.
        has_ended: it ended by itself.
        cos_requests: per image.
        exports: how many began.
        sentences: what the program printed, each once.
        last_words: what the command prints at the end of the run, and what is stored with jobs.
        reasons: of the jobs that are not verified.
    """

    variation: Variation
    harm: Harm
    states: Mapping[str, int]
    exit_code: int
    seconds: float
    has_ended: bool
    cos_requests: float
    exports: int
    sentences: tuple[str, ...]
    last_words: tuple[str, ...]
    reasons: Mapping[str, int]


def judge(seen: Observation) -> Harm:
    """Find what must not happen in what was seen."""
    of_image: dict[str, list[Export]] = {}
    for export in seen.exports:
        of_image.setdefault(export.image_id, []).append(export)
    twice = tuple(image for image, exports in of_image.items() if any(map(_is_good, exports[:-1])))
    by_state: dict[JobState, list[JobDetails]] = {}
    for one in seen.jobs:
        by_state.setdefault(one.job.state, []).append(one)
    failed, unsent = [], []
    for one in by_state.get(JobState.FAILED, []):
        exports = [of_image.get(image, []) for image in one.job.image_ids]
        if all(any(map(_is_good, own)) for own in exports):
            failed.append(_name(one.job))
        elif not any(exports):
            unsent.append(_name(one.job))
    falsely = [
        _name(one.job)
        for one in by_state.get(JobState.VERIFIED, [])
        if not _is_truly_verified(one, of_image, seen.skew)
    ]
    unexplained = [
        _name(one.job)
        for one in seen.jobs
        if one.job.state not in FINAL and not (one.job.remedy or seen.sentences)
    ]
    return Harm(
        twice=twice,
        falsely=tuple(falsely),
        failed=tuple(failed),
        en_masse=tuple(unsent) if len(unsent) > _MASS else (),
        silent=tuple(dict.fromkeys([*unexplained, *(name for one in seen.stalls for name in one)])),
    )


def _name(job: Job) -> str:
    return ";".join(job.image_ids)


def _is_good(export: Export) -> bool:
    """Return whether an export writes whole disks; objects of a few bytes are none."""
    return export.delivery is None and all(one.size > _NO_DISK for one in export.objects)


def _is_truly_verified(
    one: JobDetails, of_image: Mapping[str, Sequence[Export]], skew: float
) -> bool:
    """Return whether a job was rightly verified.

    Each of its images must have a good export that had ended, by the server's clock, when the job
    finished. No object of another export may be counted.

    Args:
        skew: seconds by which the server's clock was ahead.
    """
    assert one.job.finished_at is not None
    server_time = one.job.finished_at.timestamp() + skew
    own = {
        (stored.key, stored.etag)
        for image in one.job.image_ids
        for export in of_image.get(image, [])
        for stored in export.objects
    }
    counted = {(row["key"], row["etag"]) for row in one.objects if row["seen_at"] is not None}
    return counted <= own and all(
        any(
            _is_good(export) and export.ends_at <= server_time for export in of_image.get(image, [])
        )
        for image in one.job.image_ids
    )


def run_variation(variation: Variation, folder: Path) -> Outcome:
    """Run one variation in virtual time."""
    random.seed(variation.name)  # the program's jitter
    return in_virtual_time(lambda: _run(variation, folder))


async def _run(variation: Variation, folder: Path) -> Outcome:
    loop, settings = asyncio.get_running_loop(), variation.settings
    cloud = Cloud(SimulatorOptions(settings=settings), Clocks(_wall, loop.time))
    sentences: list[tuple[float, str]] = []

    def notify(sentence: str) -> None:
        if not sentence.startswith("Keys: "):  # which every run says
            sentences.append((loop.time(), sentence))

    store = load_settings(
        {"database_url": str(folder / "store.db"), "export_deadline": _DEADLINE}, {}
    )
    watch = _StallWatch(cloud, sentences)
    ended: list[RunResult] = []
    with _in_memory(cloud):
        async with facade.Orchestrator(
            settings=store,
            environ={"HOME": str(folder), **make_credential_variables()},
            notify=notify,
        ) as orchestrator:
            await orchestrator.enqueue(variation.requests(), batch="b")
            has_ended = await _run_once(orchestrator, watch, ended)
            for _ in range(_RETRIES if variation.retries else 0):
                if not ended[-1].counts[JobState.FAILED]:
                    break
                await orchestrator.retry(JobFilter(), actor="test")
                has_ended = await _run_once(orchestrator, watch, ended) and has_ended
            details = await read_details(orchestrator)
    seen = Observation(
        settings.skew,
        cloud.exports.all,
        details,
        sentences,
        watch.stalls,
    )
    return Outcome(
        variation=variation,
        harm=judge(seen),
        states=Counter(one.job.state.value for one in details),
        exit_code=exit_code_of_run(ended[-1]),
        seconds=loop.time(),
        has_ended=has_ended,
        cos_requests=sum(entry.service == "cos" for entry in cloud.ledger.entries) / IMAGES,
        exports=len(cloud.exports.all),
        sentences=tuple(dict.fromkeys(text for _, text in sentences)),
        last_words=(*words_of(details), *list(summary(ended[-1]))[2:]),
        reasons=reasons_of(details),
    )


async def read_details(orchestrator: facade.Orchestrator) -> list[JobDetails]:
    """Return all jobs with their objects, newest first."""
    names = [str(job.id) async for job in orchestrator.history(JobFilter())]
    found = [await orchestrator.show(name) for name in names]
    return [one for one in found if one is not None]


def reasons_of(details: Sequence[JobDetails]) -> Mapping[str, int]:
    """Count the reasons of the jobs that are not verified."""
    jobs = [one.job for one in details]
    return Counter(job.reason for job in jobs if job.state is not JobState.VERIFIED)


def words_of(details: Sequence[JobDetails]) -> tuple[str, ...]:
    """Return what is stored with jobs for people to read, each text once."""
    jobs = [one.job for one in details]
    texts = (text for job in jobs for text in (*job.warnings, job.message, job.remedy) if text)
    return tuple(dict.fromkeys(texts))


async def _run_once(
    orchestrator: facade.Orchestrator, watch: "_StallWatch", ended: list[RunResult]
) -> bool:
    """Run until nothing is left; return whether it ended by itself."""
    stop = anyio.Event()

    async def stop_it() -> None:
        await anyio.sleep(_LONGEST)
        stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_it)
        tasks.start_soon(watch.run, orchestrator)
        ended.append(await orchestrator.run(stop=stop))
        tasks.cancel_scope.cancel()
    return not stop.is_set()


@dataclass
class _StallWatch:
    """Notices that nothing is sent, finished or said for long, while jobs are left."""

    cloud: Cloud
    sentences: Sequence[tuple[float, str]]
    stalls: list[tuple[str, ...]] = field(default_factory=list)

    async def run(self, orchestrator: facade.Orchestrator) -> None:
        """Look every few seconds until cancelled."""
        progress, since, is_told = (0, 0), anyio.current_time(), False
        while True:
            await anyio.sleep(_SAMPLE)
            status = await orchestrator.status()
            seen = (
                sum(entry.action == "ExportImages" for entry in self.cloud.ledger.entries),
                sum(status.counts[state] for state in FINAL),
            )
            if seen != progress:
                progress, since, is_told = seen, anyio.current_time(), False
            elif anyio.current_time() - since >= _QUIET_LIMIT and not is_told:
                is_told = True  # once for each stall
                spoken = any(at >= since for at, _ in self.sentences)
                if not spoken and not getattr(status, "warnings", ()):
                    left = [job async for job in orchestrator.history(JobFilter())]
                    names = (_name(job) for job in left if job.state not in FINAL)
                    self.stalls.append(tuple(names))


@contextmanager
def _in_memory(cloud: Cloud) -> Iterator[None]:
    """Let the program use this cloud, virtual time and longer pauses.

    The longer pauses suit a process that shares its store with no other process.
    """

    @asynccontextmanager
    async def open_client(*_given: Any, **_named: Any) -> AsyncIterator[HttpClient]:
        transport = InMemoryTransport(cloud, (0.02, 0.05), random.Random(3))
        async with httpx.AsyncClient(transport=transport) as over_memory:
            yield HttpClient(over_memory)

    with ExitStack() as stack:
        for target, name, instead in (
            (facade, "SystemClock", VirtualClock),
            (run_setup, "open_http_client", open_client),
            (run_setup, "check_account", AsyncMock()),
            # fewer look-ups, because each takes real time
            (poller, "_OFTEN", poller._RARELY),
            (poller, "_GUESSING", poller._RARELY),
            (poller, "_MIN_OFTEN", _MIN_PAUSE),
            (poller, "_MIN_GUESSING", _MIN_PAUSE),
            (poller, "_MIN_RARELY", _MIN_PAUSE),
            # no other process changes the store, so it is looked at less often
            (worker, "_POLL", 20.0),
            (worker, "_MIN_POLL", 10.0),
            (image_describer, "_IDLE", 5.0),
            (maintenance, "_INTERVAL", 60.0),
            (poller, "_TICK", 6.0),
        ):
            stack.enter_context(patch.object(target, name, instead))
        yield


def _wall() -> float:
    return VirtualClock().now().timestamp()
