"""Names of objects: built for a job, and read from keys and CosPaths."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model import Disk, ExportOrder, ImageFormat
from orchestrator.object_keys import append_tag, key_of_cos_path, missing_images, object_key
from tests.job_factory import BUCKET, REGION

ORDER = ExportOrder(
    REGION,
    ("img-00000001",),
    BUCKET,
    ImageFormat.RAW,
    "a%b/tag",
    only_root_disk=False,
    role_name=None,
)
KEY = "a%b/tag_img-00000001_system_snap-1.raw"
HOST = f"https://{BUCKET}.cos.{REGION}.myqcloud.com"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (f"/{KEY}", KEY),
        (KEY, KEY),
        (f"{HOST}/{quote(KEY)}?sign=1", KEY),
        (f"/{quote(KEY, safe='')}", KEY),
        (quote(f"/{KEY}", safe=""), KEY),
        (f"/{BUCKET}/{KEY}", KEY),
        ("/img-00000001_system_snap-1.raw", "img-00000001_system_snap-1.raw"),
        (f"{HOST}/img-00000001_system.raw", "img-00000001_system.raw"),
        ("/a%b/tag_IMG-00000001_SYSTEM.RAW", "a%b/tag_IMG-00000001_SYSTEM.RAW"),
    ],
    ids=[
        "documented",
        "no slash",
        "URL",
        "encoded",
        "all encoded",
        "bucket",
        "no tag",
        "URL without tag",
        "case",
    ],
)
def test_cos_paths_of_any_form_mean_the_same_key(path: str, key: str) -> None:
    """All forms of a CosPath give the same key.

    It may be a URL, be percent-encoded, contain the bucket or have no slash. A percent sign that
    belongs to the key stays.
    """
    assert key_of_cos_path(path, ORDER) == key


def test_cos_paths_without_a_prefix_are_told_by_the_image() -> None:
    """With exact names and no prefix a key begins with its image id."""
    order = replace(ORDER, name_prefix="")
    key = "img-00000001_system_snap-1.raw"
    for path in (
        f"/{key}",
        f"{HOST}/{key}",
        f"/{BUCKET}/{key}",
        "%2Fimg%2D00000001_system_snap%2D1.raw",
    ):
        assert key_of_cos_path(path, order) == key


ONE, OTHER = "img-00000001", "img-00000002"
SYSTEM, DATA = f"tag_{ONE}_system_snap-1.raw", f"tag_{ONE}_data_snap-2.raw"
OTHERS = f"tag_{OTHER}_system_snap-3.raw"


@pytest.mark.parametrize(
    ("keys", "found", "missing"),
    [
        ([SYSTEM, DATA, OTHERS], [SYSTEM, DATA, OTHERS], []),
        ([SYSTEM, DATA, OTHERS], [SYSTEM, OTHERS], [ONE]),
        ([SYSTEM, DATA, OTHERS], [], [ONE, OTHER]),
        ([SYSTEM, DATA], [SYSTEM, DATA], [OTHER]),
        (["another-name.raw"], ["another-name.raw"], []),
        ([], [], []),
    ],
    ids=["all", "a disk is missing", "nothing", "an image was never named", "foreign", "no names"],
)
def test_an_image_has_arrived_when_each_of_its_objects_has(
    keys: list[str], found: list[str], missing: list[str]
) -> None:
    """An image is missing when one of its objects is, or none was ever named."""
    assert missing_images([ONE, OTHER], "tag", keys, found) == missing


def test_an_image_named_by_the_prefix_is_not_taken_for_delivered() -> None:
    """An image id in the user's own prefix does not count as an object of that image."""
    prefix = f"{OTHER}-tag"
    key = f"{prefix}_{ONE}_system_snap-1.raw"
    assert missing_images([ONE, OTHER], prefix, [key], [key]) == [OTHER]


@given(st.text(max_size=20), st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=12, max_size=12))
def test_tag_follows_the_prefix_after_a_separator(prefix: str, tag: str) -> None:
    """A separator is added only if the prefix does not end with one."""
    name = append_tag(prefix, tag)
    assert name.startswith(prefix)
    assert name.endswith(tag)
    separator = name[len(prefix) : -len(tag)]
    assert separator == ("" if not prefix or prefix[-1] in "/-_." else "-")


SYSTEM_DISK = Disk("snap-a", "SYSTEM_DISK", 50)
DATA_DISK = Disk("snap-b", "DATA_DISK", 100)


@pytest.mark.parametrize(
    ("disk", "prefix", "key"),
    [
        (SYSTEM_DISK, "web", "web_img-1_system_snap-a.qcow2"),
        (DATA_DISK, "web", "web_img-1_data_snap-b.qcow2"),
        (SYSTEM_DISK, "", "img-1_system_snap-a.qcow2"),
    ],
)
def test_a_key_is_made_of_prefix_image_and_snapshot(disk: Disk, prefix: str, key: str) -> None:
    """Keys have the vendor's form; without a prefix they begin with the image id."""
    assert object_key(prefix, "img-1", disk, ImageFormat.QCOW2) == key
