"""The actions DescribeImages and DescribeRegions."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.simulator import parameters
from orchestrator.simulator.cloud import Call, Cloud
from orchestrator.simulator.error_messages import ApiError
from orchestrator.simulator.images import Image, is_image_id
from orchestrator.simulator.regions import REGIONS

PARAMETERS: Mapping[str, parameters.Check] = {
    "ImageIds": parameters.is_texts,
    "Filters": parameters.is_filters,
    "Offset": parameters.is_number,
    "Limit": parameters.is_number,
    "InstanceType": parameters.is_text,
}
"""The parameters of DescribeImages (source: the vendor's own client)."""

_DEFAULT_LIMIT, _MAX_LIMIT = 20, 100
_MAX_FILTERS, _MAX_VALUES = 10, 5

_FILTERS: Mapping[str, Callable[[Image, str], bool]] = {
    "image-id": lambda image, value: image.image_id == value,
    "image-name": lambda image, value: value.lower() in image.name.lower(),
    "image-type": lambda image, value: image.type == value,
    "image-state": lambda image, value: image.state == value,
    "platform": lambda image, value: value.lower() in image.platform.lower(),
    "tag-key": lambda image, value: value in image.tags,
    "tag-value": lambda image, value: value in image.tags.values(),
}


def describe_images(cloud: Cloud, call: Call) -> Mapping[str, Any]:
    """Return one page of the requested images.

    If one id is unknown, the whole request is refused.
    """
    given, region = call.parameters, call.entry.region or ""
    if given.get("ImageIds") and given.get("Filters"):
        raise ApiError("InvalidParameter", "ImageIds and Filters exclude each other.")
    limit, offset = given.get("Limit", _DEFAULT_LIMIT), given.get("Offset", 0)
    if not 1 <= limit <= _MAX_LIMIT:
        raise ApiError("InvalidParameterValue", f"Limit must be from 1 to {_MAX_LIMIT}.")
    if ids := given.get("ImageIds"):
        images = _by_id(cloud, ids, region)
    else:
        images = _filtered(cloud, given.get("Filters", []), region)
    if cloud.settings.describe == "nothing":
        images = []
    page = images[offset : offset + limit]
    return {"TotalCount": len(images), "ImageSet": [_as_json(cloud, one, region) for one in page]}


def describe_regions(_cloud: Cloud, _call: Call) -> Mapping[str, Any]:
    """Return all regions."""
    regions = [
        {"Region": name, "RegionName": title, "RegionState": "AVAILABLE"}
        for name, title in REGIONS.items()
    ]
    return {"TotalCount": len(regions), "RegionSet": regions}


def _by_id(cloud: Cloud, ids: list[str], region: str) -> list[Image]:
    if len(ids) > _MAX_LIMIT:
        raise ApiError("InvalidParameterValue.LimitExceeded")
    images = []
    for image_id in ids:
        if not is_image_id(image_id):
            raise ApiError("InvalidImageId.Malformed", f"The image ID `{image_id}` is malformed.")
        image = cloud.images.find(image_id, region, cloud.settings)
        if image is None:
            raise ApiError("InvalidImageId.NotFound", f"The image ID `{image_id}` does not exist.")
        images.append(image)
    return images


def _filtered(cloud: Cloud, filters: list[Mapping[str, Any]], region: str) -> list[Image]:
    if len(filters) > _MAX_FILTERS or any(len(f["Values"]) > _MAX_VALUES for f in filters):
        raise ApiError("InvalidParameterValue.LimitExceeded")
    images: Iterable[Image] = cloud.images.known(region, cloud.settings)
    for one in filters:
        if one["Name"] == "image-id":
            found = (cloud.images.find(i, region, cloud.settings) for i in one["Values"])
            images = [image for image in found if image is not None]
    for one in filters:
        images = _matching(list(images), one["Name"], one["Values"])
    return list(images)


def _matching(images: list[Image], name: str, values: list[str]) -> list[Image]:
    """Return the images that match any value of one filter."""
    if name.startswith("tag:"):
        return [image for image in images if image.tags.get(name[4:]) in values]
    if name not in _FILTERS:
        raise ApiError("InvalidFilter", f"The filter `{name}` is not known.")
    return [image for image in images if any(_FILTERS[name](image, v) for v in values)]


def _as_json(cloud: Cloud, image: Image, region: str) -> Mapping[str, Any]:
    """Return an image in the vendor's form; during an export its state is EXPORTING."""
    form = cloud.settings.describe
    snapshots = [
        {
            "SnapshotId": d.other_snapshot_id if form == "other-snapshots" else d.snapshot_id,
            "DiskUsage": d.usage,
            **({} if form == "no-sizes" else {"DiskSize": d.size_gib}),
        }
        for d in image.disks
    ]
    busy = image.state == "NORMAL" and cloud.exports.busy(image.image_id, region)
    return {
        "ImageId": image.image_id,
        "ImageName": image.name,
        "ImageState": "EXPORTING" if busy else image.state,
        "ImageType": image.type,
        "ImageSource": "CREATE_IMAGE",
        "Platform": image.platform,
        "OsName": image.os_name,
        "Architecture": "x86_64",
        **({} if form == "no-sizes" else {"ImageSize": image.sizes[0]}),
        "CreatedTime": image.created,
        "Tags": [{"Key": key, "Value": value} for key, value in image.tags.items()],
        **({} if form == "no-snapshots" else {"SnapshotSet": snapshots}),
    }
