"""The action ExportImages."""

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.simulator import parameters
from orchestrator.simulator.cloud import Call, Cloud
from orchestrator.simulator.error_messages import ApiError
from orchestrator.simulator.export_tasks import Order
from orchestrator.simulator.images import Image, is_image_id

PARAMETERS: Mapping[str, parameters.Check] = {
    "BucketName": parameters.is_text,
    "ImageIds": parameters.is_texts,
    "SnapshotIds": parameters.is_texts,
    "ExportFormat": parameters.is_text,
    "FileNamePrefixList": parameters.is_texts,
    "OnlyExportRootDisk": parameters.is_flag,
    "DryRun": parameters.is_flag,
    "RoleName": parameters.is_text,
}
"""The parameters of the action (source: the vendor's page of the API)."""

_FORMATS = frozenset({"RAW", "QCOW2", "VHD", "VMDK"})
_BUCKET = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?-\d+")
_MAX_IMAGES = 100
_MAX_KEY_BYTES = 850
_MAX_GIB = 500
_DEFAULT_ROLE = "CVM_QcsRole"


def export_images(cloud: Cloud, call: Call) -> Mapping[str, Any]:
    """Start the export of a request's images.

    If one image cannot be exported, the whole request is refused.
    """
    entry, settings = call.entry, cloud.settings
    order = _order(cloud, call)
    if entry.dry_run:
        if settings.dry_run_code is not None:
            raise ApiError(settings.dry_run_code)
        return {}
    running = cloud.exports.tasks(order.account, order.region) + settings.occupied
    cap = settings.caps.get(order.region, settings.cap)
    if cap is not None and running >= cap:
        raise ApiError(settings.cap_code)
    deliveries = [cloud.delivery(image.image_id) for image in order.images]
    entry.task_id = cloud.exports.begin(order, cloud.now(), settings, deliveries)
    entry.cos_paths = order.cos_paths(settings.cos_paths)
    entry.accepted = True
    return {"TaskId": entry.task_id, "CosPaths": entry.cos_paths}


def _order(cloud: Cloud, call: Call) -> Order:
    """Check everything about a request and return it as an order."""
    given, entry = call.parameters, call.entry
    _check_lists(given)
    image_format = given.get("ExportFormat", "RAW")
    if image_format not in _FORMATS:
        raise ApiError("InvalidParameterValue", f"ExportFormat must not be `{image_format}`.")
    prefixes = () if cloud.settings.ignore_prefix else entry.prefixes
    order = Order(
        account=entry.account or "",
        region=entry.region or "",
        bucket=_bucket(cloud, given, entry.region or ""),
        format=image_format,
        only_root_disk=given.get("OnlyExportRootDisk", False),
        images=tuple(_image(cloud, one, entry.region or "") for one in entry.image_ids),
        prefixes=prefixes or ("",) * len(entry.image_ids),
    )
    if given.get("RoleName", _DEFAULT_ROLE) in {"", *cloud.settings.absent_roles}:
        raise ApiError("AuthFailure.CamRoleNameAuthenticateFailed")
    for number, image in enumerate(order.images):
        _check_disks(order, number)
        busy = cloud.exports.busy(image.image_id, order.region)
        if image.state != "NORMAL" or (busy and not cloud.settings.accept_busy_images):
            raise ApiError("InvalidParameterValue.InvalidImageState", _message(image.image_id))
    return order


def _check_lists(given: parameters.Parameters) -> None:
    images, snapshots = given.get("ImageIds", []), given.get("SnapshotIds", [])
    prefixes = given.get("FileNamePrefixList", [])
    if bool(images) == bool(snapshots):
        raise ApiError("InvalidParameter.ImageIdsSnapshotIdsMustOne")
    if snapshots:
        raise ApiError("InvalidParameter.SnapshotNotFound")
    if len(images) > _MAX_IMAGES:
        raise ApiError("InvalidParameterValue.LimitExceeded")
    for image_id in images:
        if not is_image_id(image_id):
            raise ApiError("InvalidImageId.Malformed", f"The image ID `{image_id}` is malformed.")
    if len(set(images)) < len(images):
        raise ApiError("InvalidParameterValue", "ImageIds names an image twice.")
    if prefixes and len(prefixes) != len(images):
        raise ApiError("InvalidParameterValue.InvalidFileNamePrefixList")


def _bucket(cloud: Cloud, given: parameters.Parameters, region: str) -> str:
    """Return the name of the bucket, if exports can be written to it."""
    if "BucketName" not in given:
        raise ApiError("MissingParameter", "The request lacks the parameter `BucketName`.")
    name: str = given["BucketName"]
    if not _BUCKET.fullmatch(name):
        raise ApiError("InvalidParameterValue.InvalidAppIdFormat")
    bucket = cloud.bucket(name, region)
    if bucket is None:
        raise ApiError("InvalidParameterValue.BucketNotFound")
    if "ExportImages" in bucket.deny:
        raise ApiError("InvalidParameterValue.InvalidBucketPermissionForExport")
    return name


def _image(cloud: Cloud, image_id: str, region: str) -> Image:
    """Return an image, if its kind can be exported."""
    image = cloud.images.find(image_id, region, cloud.settings)
    if image is None:
        raise ApiError("InvalidImageId.NotFound", f"The image ID `{image_id}` does not exist.")
    reasons = {
        "PublicImageExportUnsupported": image.type == "PUBLIC_IMAGE",
        "SharedImageExportUnsupported": image.type == "SHARED_IMAGE",
        "MarketImageExportUnsupported": image.market,
        "EncryptedImagesNotSupported": image.encrypted,
        "WindowsImageExportUnsupported": image.platform == "Windows",
        "RedHatImageExportUnsupported": image.platform in {"RedHat", "Red Hat"},
    }
    for reason, holds in reasons.items():
        if holds:
            raise ApiError(f"UnsupportedOperation.{reason}", _message(image_id))
    return image


def _check_disks(order: Order, number: int) -> None:
    for key, disk in order.files(number):
        if disk.size_gib > _MAX_GIB:
            raise ApiError("UnsupportedOperation.ImageTooLargeExportUnsupported")
        if len(key.encode()) > _MAX_KEY_BYTES:
            raise ApiError("InvalidParameterValue.TooLarge")


def _message(image_id: str) -> str:
    return f"The image `{image_id}` cannot be exported, or not now."
