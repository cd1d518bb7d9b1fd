"""What counts as harm in the table of variations: each count can differ from 0."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.job_states import JobState
from orchestrator.simulator import Duration, Export, Settings
from orchestrator.simulator.buckets import Buckets
from orchestrator.simulator.export_tasks import Exports, Order
from orchestrator.simulator.images import Image

from .variation_run import Harm, Observation, judge

ONE, TWO = "img-00000001", "img-00000002"
BEGIN = 1_000_000.0
END = BEGIN + 60


def make_exports(*images: str, delivery: str | None = None, tiny: bool = False) -> list[Export]:
    """Make an export of each image that begins at `BEGIN` and ends at `END`."""
    exports = Exports(1, Buckets())
    settings = Settings(
        duration=Duration(seconds=60),
        queue_delay=0,
        object_sizes="tiny" if tiny else "documented",
    )
    for image in images:
        order = Order("a", "ap-tokyo", "b-1", "RAW", False, (Image(image),), ("",))
        exports.begin(order, BEGIN, settings, [delivery])
    return exports.all


def make_job(
    image: str, state: JobState, exports: Sequence[Export] = (), at: float = END, remedy: str = ""
) -> Any:
    """Make a job that counts the objects of these exports as its own."""
    rows = [
        {"key": stored.key, "etag": stored.etag, "seen_at": at}
        for export in exports
        for stored in export.objects
    ]
    finished_at = datetime.fromtimestamp(at, UTC)
    job = SimpleNamespace(image_ids=(image,), state=state, finished_at=finished_at, remedy=remedy)
    return SimpleNamespace(job=job, objects=rows)


def harm_of(exports: Sequence[Export], *jobs: Any, **more: Any) -> Harm:
    """Judge exports and jobs."""
    return judge(Observation(**{"skew": 0.0, "sentences": (), **more}, exports=exports, jobs=jobs))


def test_good_run_has_no_harm() -> None:
    """A job that is verified after its export has ended is no harm.

    A failed job of a missing image is no harm either.
    """
    exports = make_exports(ONE)
    jobs = make_job(ONE, JobState.VERIFIED, exports), make_job(TWO, JobState.FAILED)
    assert not harm_of(exports, *jobs)


def test_second_export_counts() -> None:
    """A second export counts, unless the first one did not deliver."""
    assert harm_of(make_exports(ONE, ONE)).twice == (ONE,)
    assert not harm_of([*make_exports(ONE, delivery="never"), *make_exports(ONE)])


def test_verified_too_early_counts() -> None:
    """A second before the end, by the server's clock, it is too early."""
    exports = make_exports(ONE)
    early = make_job(ONE, JobState.VERIFIED, exports, at=END - 1)
    assert harm_of(exports, early).falsely == (ONE,)
    assert not harm_of(exports, early, skew=2.0)


@pytest.mark.parametrize("lacking", [{"delivery": "partial"}, {"tiny": True}, {}])
def test_verified_without_a_good_export_counts(lacking: dict[str, Any]) -> None:
    """Objects that are missing or no disks, or no export at all."""
    exports = make_exports(ONE, **lacking) if lacking else []
    verified = make_job(ONE, JobState.VERIFIED, exports)
    assert harm_of(exports, verified).falsely == (ONE,)


def test_object_of_others_counts() -> None:
    """An object with the right key but another ETag is somebody else's."""
    exports = make_exports(ONE)
    (stored,) = exports[0].objects
    other = replace(exports[0], objects=(replace(stored, etag="old"),))
    assert harm_of(exports, make_job(ONE, JobState.VERIFIED, [other])).falsely == (ONE,)


def test_failed_although_exported_counts() -> None:
    """A failed job with a good export counts as harm; with a partial one it does not."""
    failed = make_job(ONE, JobState.FAILED)
    assert harm_of(make_exports(ONE), failed).failed == (ONE,)
    assert not harm_of(make_exports(ONE, delivery="partial"), failed)


def test_mass_failure_counts() -> None:
    """Five failed jobs that were never exported are tolerated, six are not."""
    jobs = [make_job(f"img-0000001{n}", JobState.FAILED) for n in range(6)]
    assert len(harm_of([], *jobs).en_masse) == 6
    assert not harm_of([], *jobs[:5])


def test_silence_counts() -> None:
    """A job that is left without any sentence counts as harm, as does a stalled job."""
    left = make_job(ONE, JobState.ACCEPTED)
    assert harm_of([], left).silent == (ONE,)
    assert not harm_of([], left, sentences=[(1.0, "Warning: nothing shows.")])
    assert not harm_of([], make_job(ONE, JobState.UNKNOWN, remedy="Look into the bucket."))
    assert harm_of([], stalls=[(ONE, TWO)]).silent == (ONE, TWO)
