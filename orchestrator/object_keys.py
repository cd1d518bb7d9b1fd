"""Names of the objects of an export: built for a job, and read from keys and CosPaths.

Documented is `<prefix>_<image id>_<system or data>_<snapshot id>.<format>` (source: the vendor's
page on exporting images). The prefix ends with the job's tag unless the job has exact names.
"""

import re
from collections.abc import Collection, Iterable
from urllib.parse import unquote

from orchestrator.model import Disk, ExportOrder, ImageFormat

_URL = re.compile(r"[a-z]+://[^/]+(/[^?#]*)", re.IGNORECASE)


def append_tag(prefix: str, tag: str) -> str:
    """Return the prefix of a job's object keys: the user's prefix and the job's tag."""
    separator = "" if not prefix or prefix.endswith(("/", "-", "_", ".")) else "-"
    return f"{prefix}{separator}{tag}"


def object_key(object_prefix: str, image_id: str, disk: Disk, image_format: ImageFormat) -> str:
    """Return the key of a disk's object.

    Source: the vendor's page on exporting images.
    """
    kind = "system" if disk.usage == "SYSTEM_DISK" else "data"
    name = f"{image_id}_{kind}_{disk.snapshot_id}.{image_format.lower()}"
    return f"{object_prefix}_{name}" if object_prefix else name


def is_disk_of(image_id: str, key: str, object_prefix: str) -> bool:
    """Return whether a key names a disk of this image.

    The image id follows the prefix (source: the vendor's page on exporting images).
    """
    return key.removeprefix(object_prefix).removeprefix("_").startswith(f"{image_id}_")


def key_of_cos_path(path: str, order: ExportOrder) -> str:
    """Return the object key that a CosPath means.

    Documented is the key after a slash. Where that does not begin like a key of this order, a
    scheme with a host, percent-encoding and the bucket's name are removed, if it then does.
    """
    url = _URL.match(path)
    text = url[1] if url else path
    plain, *others = [
        one.removeprefix("/").removeprefix(bucket)
        for one in (text, unquote(text))
        for bucket in ("", f"{order.bucket}/")
    ]
    named = tuple(f"{order.name_prefix}_{image}_" for image in order.image_ids)
    begins = (*named, *order.image_ids) if order.name_prefix else order.image_ids
    return next((key for key in (plain, *others) if key.startswith(begins)), plain)


def names_job_or_image(path: str, object_prefix: str, image_ids: Iterable[str]) -> bool:
    """Return whether a path begins with the job's prefix or contains an image id.

    Args:
        path: a CosPath or a key.
        object_prefix: the job's own prefix; empty if it has none.
    """
    named = bool(object_prefix) and path.removeprefix("/").startswith(object_prefix)
    return named or any(image in path for image in image_ids)


def missing_images(
    image_ids: Iterable[str], object_prefix: str, keys: Iterable[str], found: Collection[str]
) -> list[str]:
    """Return the images of a request that lack an object, in the request's order.

    Args:
        keys: every required key. If none contains an image id, nothing is returned.
        found: those keys that have an object.
    """
    of_image = {
        image: {key for key in keys if is_disk_of(image, key, object_prefix)} for image in image_ids
    }
    if not any(of_image.values()):
        return []
    return [image for image, own in of_image.items() if not own or not own <= set(found)]
