"""Which images of a request arrived, as far as the object keys show."""

import pytest

from orchestrator.verification.completeness import Completeness, missing_images

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


def test_no_required_objects_are_not_complete() -> None:
    """A job without required objects does not count as delivered."""
    assert not Completeness((), (), ()).is_complete


def test_an_image_named_by_the_prefix_is_not_taken_for_delivered() -> None:
    """An image id in the user's own prefix does not show which image an object belongs to."""
    prefix = f"{OTHER}-tag"
    key = f"{prefix}_{ONE}_system_snap-1.raw"
    assert missing_images([ONE, OTHER], prefix, [key], [key]) == [OTHER]
