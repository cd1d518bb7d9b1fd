"""The images that exist, and how DescribeImages shows them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from orchestrator.simulator import ImageSettings, Settings, Simulator, SimulatorOptions
from orchestrator.simulator.images import Catalogue, is_image_id

from .clients import call, code_of, export

pytestmark = pytest.mark.anyio

REGIONS = ("ap-singapore", "ap-tokyo")


@pytest.fixture
async def stocked() -> AsyncIterator[Simulator]:
    """A simulator with a catalogue of 250 images in two regions."""
    options = SimulatorOptions(images=250, regions=REGIONS)
    async with Simulator(options) as running:
        yield running


async def describe(http: httpx.AsyncClient, simulator: Simulator, **given: Any) -> dict[str, Any]:
    """Send one DescribeImages and return the answer."""
    return await call(http, simulator, "DescribeImages", given)


def make_filter(name: str, *values: str) -> list[dict[str, Any]]:
    """Make a list with one filter."""
    return [{"Name": name, "Values": list(values)}]


def test_catalogue_follows_its_seed() -> None:
    """The same seed makes the same images; all ids are well-formed and unique."""
    images = Catalogue(7, 300, REGIONS).made()
    assert images == Catalogue(7, 300, REGIONS).made()
    assert images != Catalogue(8, 300, REGIONS).made()
    assert len({image.image_id for image in images}) == 300
    assert all(is_image_id(image.image_id) for image in images)


def test_catalogue_has_variety() -> None:
    """Regions are filled evenly; some images have data disks and some have none."""
    images = Catalogue(1, 200, REGIONS).made()
    assert sum(image.region == "ap-tokyo" for image in images) == 100
    assert 20 < sum(len(image.sizes) > 1 for image in images) < 180


def test_without_a_catalogue_any_image_exists() -> None:
    """Its disks depend only on its id: 50 GiB, and sometimes a data disk."""
    catalogue, settings = Catalogue(1, 0, REGIONS), Settings()
    found = [catalogue.find(f"img-{n:08}", "ap-tokyo", settings) for n in range(100)]
    sizes = [image.sizes for image in found if image is not None]
    assert len(sizes) == 100
    assert 10 < sizes.count((50, 100)) < 50
    assert set(sizes) == {(50,), (50, 100)}


def test_with_a_catalogue_only_its_images_exist() -> None:
    """Other images exist only if the settings say so."""
    catalogue = Catalogue(1, 5, REGIONS)
    assert catalogue.find("img-00000000", "ap-tokyo", Settings()) is None
    assert catalogue.find("img-00000000", "ap-tokyo", Settings(any_image=True)) is not None
    named = Settings(images={"img-00000000": ImageSettings(name="mine")})
    assert catalogue.find("img-00000000", "ap-tokyo", named) is not None


async def test_pages_contain_every_image_once(stocked: Simulator, http: httpx.AsyncClient) -> None:
    """Offset and Limit page through the images of a region."""
    seen: list[str] = []
    while True:
        page = await describe(http, stocked, Offset=len(seen), Limit=100)
        seen += [image["ImageId"] for image in page["ImageSet"]]
        if len(seen) == page["TotalCount"]:
            break
    assert seen == [one.image_id for one in stocked.images if one.region == "ap-singapore"]


async def test_page_has_twenty_images_by_default(
    stocked: Simulator, http: httpx.AsyncClient
) -> None:
    """Without Limit a page has 20 images; over 100 is refused."""
    assert len((await describe(http, stocked))["ImageSet"]) == 20
    assert code_of(await describe(http, stocked, Limit=101)) == "InvalidParameterValue"


async def test_images_are_found_by_id(stocked: Simulator, http: httpx.AsyncClient) -> None:
    """ImageIds returns exactly these images, in the requested order."""
    ids = [one.image_id for one in stocked.images[4::-2]]
    page = await describe(http, stocked, ImageIds=ids)
    assert [image["ImageId"] for image in page["ImageSet"]] == ids


async def test_unknown_id_fails_the_whole_call(stocked: Simulator, http: httpx.AsyncClient) -> None:
    """One unknown id, or one of another region, refuses the request."""
    here, elsewhere = (one.image_id for one in stocked.images[:2])
    answer = await describe(http, stocked, ImageIds=[here, elsewhere])
    assert code_of(answer) == "InvalidImageId.NotFound"
    assert elsewhere in answer["Error"]["Message"]
    assert code_of(await describe(http, stocked, ImageIds=["ami-1"])) == "InvalidImageId.Malformed"


async def test_disks_are_shown(stocked: Simulator, http: httpx.AsyncClient) -> None:
    """Snapshots have usage and size, the system disk first, as in the object keys."""
    image = next(one for one in stocked.images[::2] if len(one.sizes) > 1)
    shown = (await describe(http, stocked, ImageIds=[image.image_id]))["ImageSet"][0]
    assert [disk["DiskSize"] for disk in shown["SnapshotSet"]] == list(image.sizes)
    paths = (await export(http, stocked, image.image_id))["CosPaths"]
    for disk, path in zip(shown["SnapshotSet"], paths, strict=True):
        usage = "system" if disk["DiskUsage"] == "SYSTEM_DISK" else "data"
        assert path == f"/{image.image_id}_{usage}_{disk['SnapshotId']}.raw"


async def test_state_shows_a_running_export(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """The state is EXPORTING during an export, NORMAL before and after."""
    states = []
    for step in ("before", "during", "after"):
        if step == "during":
            await export(http, simulator, "img-00000001")
        if step == "after":
            simulator.change(skew=260.0)
        page = await describe(http, simulator, ImageIds=["img-00000001"])
        states.append(page["ImageSet"][0]["ImageState"])
    assert states == ["NORMAL", "EXPORTING", "NORMAL"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (make_filter("image-name", "SERVER-0004"), {"server-0004"}),
        (make_filter("image-name", "server-0004", "server-0006"), {"server-0004", "server-0006"}),
        (make_filter("tag:number", "8"), {"server-0008"}),
        (make_filter("tag-value", "10"), {"server-0010"}),
        (make_filter("image-state", "CREATEFAILED"), {"server-0000"}),
        (make_filter("platform", "wind"), {"server-0000"}),
        (make_filter("image-type", "SHARED_IMAGE"), {"server-0000"}),
        (make_filter("tag-key", "owner"), {"server-0000"}),
        (make_filter("tag:number", "8") + make_filter("image-name", "server-0006"), set()),
    ],
)
async def test_filters(
    stocked: Simulator, http: httpx.AsyncClient, filters: Any, found: set[str]
) -> None:
    """Values of one filter mean "or", several filters mean "and"."""
    changed = ImageSettings(
        state="CREATEFAILED", platform="Windows", type="SHARED_IMAGE", tags={"owner": "x"}
    )
    stocked.change(images={stocked.images[0].image_id: changed})
    page = await describe(http, stocked, Filters=filters)
    assert {image["ImageName"] for image in page["ImageSet"]} == found


async def test_id_filter_finds_any_image(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """If any image exists a filter by id finds it, and a list without ids is empty."""
    page = await describe(http, simulator, Filters=make_filter("image-id", "img-00000001"))
    assert page["TotalCount"] == 1
    assert (await describe(http, simulator))["TotalCount"] == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"Filters": make_filter("colour", "red")}, "InvalidFilter"),
        ({"Filters": make_filter("tag-key", *"abcdef")}, "InvalidParameterValue.LimitExceeded"),
        ({"Filters": make_filter("tag-key", "a") * 11}, "InvalidParameterValue.LimitExceeded"),
        ({"Filters": [{"Name": "tag-key"}]}, "InvalidParameterValue"),
        ({"ImageIds": ["img-00000000"] * 101}, "InvalidParameterValue.LimitExceeded"),
        (
            {"ImageIds": ["img-00000000"], "Filters": make_filter("tag-key", "a")},
            "InvalidParameter",
        ),
    ],
)
async def test_wrong_filters_are_refused(
    stocked: Simulator, http: httpx.AsyncClient, given: dict[str, Any], expected: str
) -> None:
    """Unknown or too many filters, and ids together with filters, have their codes."""
    assert code_of(await describe(http, stocked, **given)) == expected
