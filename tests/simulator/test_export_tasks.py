"""Export tasks over time, without a server: the time is a parameter."""

import math
from statistics import median
from typing import Literal

import pytest

from orchestrator.simulator import Duration, Settings
from orchestrator.simulator.buckets import Buckets
from orchestrator.simulator.export_tasks import Exports, Order
from orchestrator.simulator.images import Image

BUCKET, REGION = "backup-1250000000", "ap-singapore"


def make_order(*numbers: int) -> Order:
    """Make an order for images with a system disk and a data disk."""
    images = tuple(Image(f"img-{number:08}", sizes=(50, 100)) for number in numbers)
    return Order("account", REGION, BUCKET, "RAW", False, images, ("",) * len(images))


def begin_export(settings: Settings, delivery: str | None = None, seed: int = 1) -> Exports:
    """Return exports with one image, begun at time 1000."""
    exports = Exports(seed, Buckets())
    exports.begin(make_order(1), 1000.0, settings, [delivery])
    return exports


def test_export_states_follow_the_clock() -> None:
    """An export is queued, then uploading, then ended."""
    export = begin_export(Settings(duration=Duration(seconds=10), queue_delay=5)).all[0]
    states = [export.state(at) for at in (1000, 1004, 1005, 1014, 1015)]
    assert states == ["queued", "queued", "uploading", "uploading", "ended"]


def test_objects_are_written_at_the_end() -> None:
    """Objects replace the uploads when the export ends.

    Until then the image is busy, and the task counts against the cap.
    """
    buckets = Buckets()
    exports = Exports(1, buckets)
    settings = Settings(duration=Duration(seconds=10), queue_delay=0)
    exports.begin(make_order(1, 2), 1000.0, settings, [None, None])
    exports.advance(1009.0)
    assert len(exports.uploads(BUCKET, REGION, 1009.0)) == 4
    assert exports.tasks("account", REGION) == 1
    assert exports.busy("img-00000001", REGION)
    exports.advance(1010.0)
    assert not exports.uploads(BUCKET, REGION, 1010.0)
    assert not exports.running()
    assert not exports.busy("img-00000001", REGION)
    written = buckets.after(BUCKET, REGION, "", "")
    assert [stored.written_at for stored in written] == [1010.0] * 4


@pytest.mark.parametrize(
    ("delivery", "sizes"),
    [
        (None, [50 << 30, 100 << 30]),
        ("never", []),
        ("partial", [50 << 30]),
        ("empty", [0, 0]),
    ],
)
def test_delivery_faults(delivery: str | None, sizes: list[int]) -> None:
    """A delivery fault writes no objects, all but the last disk, or empty objects.

    The uploads are unchanged.
    """
    export = begin_export(Settings(), delivery).all[0]
    assert [stored.size for stored in export.objects] == sizes
    assert len(export.uploads) == 2


def test_stuck_export_never_ends() -> None:
    """A stuck export counts against the cap for ever."""
    exports = begin_export(Settings(), "stuck")
    exports.advance(10**9)
    assert exports.all[0].ends_at == math.inf
    assert exports.tasks("account", REGION) == 1


def test_empty_object_has_the_md5_of_no_bytes() -> None:
    """The ETag of an empty object is the MD5 of no bytes, without a number of parts."""
    stored = begin_export(Settings(), "empty").all[0].objects[0]
    assert stored.etag == "d41d8cd98f00b204e9800998ecf8427e"
    assert stored.crc64 == 0


def test_etag_has_the_number_of_parts() -> None:
    """50 GiB in parts of 64 MiB are 800 parts."""
    assert begin_export(Settings()).all[0].objects[0].etag.endswith("-800")


def test_larger_image_takes_longer() -> None:
    """Seconds per GiB are added for all exported disks."""
    export = begin_export(Settings(duration=Duration(seconds=1, per_gib=2), queue_delay=0)).all[0]
    assert export.ends_at == pytest.approx(1000 + 1 + 2 * 150)


@pytest.mark.parametrize("kind", ["uniform", "lognormal"])
def test_durations_spread_around_their_median(kind: Literal["uniform", "lognormal"]) -> None:
    """The median of many is the configured value; they differ; the seed decides them."""
    duration = Duration(kind=kind, seconds=100, spread=0.3)
    settings = Settings(duration=duration, queue_delay=0)

    def seconds() -> list[float]:
        exports = Exports(1, Buckets())
        exports.begin(make_order(*range(500)), 0.0, settings, [None] * 500)
        return [export.ends_at for export in exports.all]

    assert median(seconds()) == pytest.approx(100, rel=0.1)
    assert len(set(seconds())) == 500
    assert seconds() == seconds()
    if kind == "uniform":
        assert 70 <= min(seconds()) < max(seconds()) <= 130


def test_second_export_of_the_same_keys_is_a_duplicate() -> None:
    """It is marked as a duplicate, and writes another object under the same key."""
    exports = Exports(1, Buckets())
    for _ in range(2):
        exports.begin(make_order(1), 1000.0, Settings(), [None])
    first, second = exports.all
    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.objects[0].key == second.objects[0].key
    assert first.objects[0].etag != second.objects[0].etag


def test_seed_decides_task_ids_and_checksums() -> None:
    """Another seed gives other task ids and checksums."""
    one, other = begin_export(Settings(), seed=1), begin_export(Settings(), seed=2)
    assert one.all == begin_export(Settings(), seed=1).all
    assert one.all[0].task_id != other.all[0].task_id
    assert one.all[0].objects[0].etag != other.all[0].objects[0].etag
