"""The ways in which a vendor could differ from its documents, as data."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.model import ImageFormat
from orchestrator.simulator import (
    BucketSettings,
    Delivery,
    Duration,
    Fault,
    ImageSettings,
    Refusal,
)
from tests.end_to_end.harness import make_image_ids

from .variation_run import BUCKET, IMAGES, OTHER_REGION, REGION, Variation

EXPORT, DESCRIBE = "ExportImages", "DescribeImages"
TWO_DISKS = {image: ImageSettings(sizes=(50, 100)) for image in make_image_ids(IMAGES)}
"""Every image has a data disk."""


def _fault(kind: Any, action: str = EXPORT, **rule: Any) -> Mapping[str, Any]:
    return {"faults": (Fault(kind, action=action, **rule),)}


def _refusal(code: str, action: str = EXPORT, **rule: Any) -> Mapping[str, Any]:
    return {"codes": (Refusal(code, action=action, **rule),)}


def _of(area: str, *rows: tuple[str, str, Mapping[str, Any]], **more: Any) -> list[Variation]:
    """Return the variations of one area.

    Args:
        rows: name, difference and vendor settings of each variation.
        more: fields that all these variations have in common.
    """
    return [
        Variation(name=name, area=area, differs=differs, vendor=vendor, **more)
        for name, differs, vendor in rows
    ]


_STATE = "InvalidParameterValue.InvalidImageState"

ANSWERS = _of(
    "answers",
    ("as documented", "nothing differs", {}),
    (
        "busy although begun, 30 %",
        "a gateway repeats requests inside, so the answer is that the image is busy",
        _refusal(_STATE, after=True, chance=0.3),
    ),
    (
        "busy although begun",
        "every export begins, and every answer is that the image is busy",
        _refusal(_STATE, after=True),
    ),
    (
        "capacity although begun, 10 %",
        "the code of the cap for an export that has begun",
        _refusal("LimitExceeded.ExportImageTaskLimitExceeded", after=True, chance=0.1),
    ),
    (
        "internal error although begun, 20 %",
        "InternalError for an export that has begun",
        _refusal("InternalError", after=True, chance=0.2),
    ),
    (
        "unlisted code although begun, 10 %",
        "a code that no page lists for an export that has begun",
        _refusal("TaskFailed.Timeout", after=True, chance=0.1),
    ),
    (
        "expired although begun, 10 %",
        "AuthFailure.SignatureExpire for an export that has begun",
        _refusal("AuthFailure.SignatureExpire", after=True, chance=0.1),
    ),
    ("without TaskId", "no answer has a TaskId", _fault("no-task-id")),
    ("without CosPaths", "no answer has CosPaths", _fault("no-cos-paths")),
    (
        "HTML",
        "every answer is a page with status 200, and exports begin",
        _fault("html", after=True),
    ),
    (
        "gateway 504",
        "every export begins, and every answer is lost",
        _fault("gateway", after=True, status=504),
    ),
    (
        "half of the requests lost",
        "requests are lost before and after processing",
        {
            "faults": (
                Fault("reset", action=EXPORT, chance=0.2),
                Fault("reset", action=EXPORT, after=True, chance=0.3),
            )
        },
    ),
)

RETRIED = _of(
    "answers",
    (
        "value refused although begun, 5 %, retry",
        "InvalidParameterValue for an export that has begun; an operator retries",
        _refusal("InvalidParameterValue", after=True, chance=0.05),
    ),
    (
        "value refused although begun, retry",
        "InvalidParameterValue for every first export; an operator retries",
        _refusal("InvalidParameterValue", after=True, times=IMAGES),
    ),
    (
        "not found although begun, 10 %, retry",
        "InvalidImageId.NotFound for an export that has begun; an operator retries",
        _refusal("InvalidImageId.NotFound", after=True, chance=0.1),
    ),
    retries=True,
)

ONE_FILE = {"object_names": "one-file", "cos_paths": "one-file"}
_DISKS_LEFT_OUT = {"images": TWO_DISKS, "deliveries": (Delivery("partial", chance=0.1),)}
_OLD = {"ignore_prefix": True, "old_objects": True}

NAMES = [
    *_of(
        "paths and names",
        ("CosPaths as URLs", "CosPaths are URLs", {"cos_paths": "url"}),
        ("CosPaths encoded", "CosPaths are percent-encoded", {"cos_paths": "encoded"}),
        ("CosPaths without slash", "CosPaths lack the first slash", {"cos_paths": "no-slash"}),
        ("CosPaths with bucket", "CosPaths begin with the bucket", {"cos_paths": "bucket-first"}),
        (
            "CosPaths in capitals",
            "CosPaths are in capitals, the objects are not",
            {"cos_paths": "uppercase"},
        ),
        (
            "CosPaths of system disks",
            "CosPaths name the system disk only, which comes first",
            {"cos_paths": "system-only", "data_disks_after": 120.0},
        ),
        ("CosPaths empty", "CosPaths are an empty list", {"cos_paths": "empty"}),
        (
            "objects and paths in capitals",
            "objects and CosPaths are in capitals",
            {"object_names": "uppercase", "cos_paths": "uppercase"},
        ),
        (
            "objects with .gz",
            "objects are compressed, CosPaths do not say so",
            {"object_names": "gz"},
        ),
        ("objects split", "each disk is written in two parts", {"object_names": "split"}),
        (
            "one file, RAW",
            "all disks of an image are one object, which CosPaths name",
            {**ONE_FILE, "images": TWO_DISKS},
        ),
        (
            "data disks left out, other names",
            "a tenth of the exports lack the data disk; objects have other names",
            {"object_names": "gz", **_DISKS_LEFT_OUT},
        ),
        (
            "other snapshot ids",
            "objects have other snapshot ids than CosPaths",
            {"object_names": "other-snapshots"},
        ),
        (
            "other snapshot ids, CosPaths empty",
            "only the bucket shows the names",
            {"object_names": "other-snapshots", "cos_paths": "empty"},
        ),
        ("prefix dropped", "keys and CosPaths leave out the prefix", {"ignore_prefix": True}),
        (
            "prefix dropped, old objects",
            "the same, and last month's objects have those names",
            _OLD,
        ),
        (
            "prefix dropped, old objects, no CosPaths",
            "the same, and CosPaths are empty",
            {**_OLD, "cos_paths": "empty"},
        ),
    ),
    *_of(
        "paths and names",
        (
            "exact names, old objects",
            "last month's objects have the jobs' own names",
            {"old_objects": True},
        ),
        request={"exact_names": True},
    ),
    *_of(
        "paths and names",
        (
            "one file, QCOW2",
            "all disks of an image are one object, which CosPaths name",
            {**ONE_FILE, "images": TWO_DISKS},
        ),
        *(
            (
                f"data disks left out, QCOW2, {names}",
                f"a tenth of the exports lack the data disk; the names of objects are {names}",
                {"object_names": names, **_DISKS_LEFT_OUT},
            )
            for names in ("gz", "uppercase", "other-snapshots")
        ),
        request={"format": ImageFormat.QCOW2},
    ),
    *_of(
        "paths and names",
        (
            "four images, other snapshot ids shown",
            "DescribeImages shows other snapshot ids than the keys have",
            {"describe": "other-snapshots"},
        ),
        (
            "four images, other snapshot ids written",
            "the objects have other snapshot ids than CosPaths",
            {"object_names": "other-snapshots"},
        ),
        (
            "four images, CosPaths of system disks",
            "CosPaths name the system disks only, which come first",
            {"cos_paths": "system-only", "data_disks_after": 120.0},
        ),
        ("four images, prefix dropped, old objects", "no prefix, and last month's objects", _OLD),
        images_per_job=4,
    ),
    *_of(
        "paths and names",
        (
            "folder as prefix, encoded",
            "CosPaths are percent-encoded, and the prefix has a slash",
            {"cos_paths": "encoded"},
        ),
        request={"prefix": "night/run"},
    ),
]

OBJECTS = _of(
    "objects",
    ("objects grow", "objects show from the start of the upload", {"growing_objects": True}),
    (
        "objects grow, uploads hidden",
        "the same, and List Multipart Uploads is empty",
        {"growing_objects": True, "hide_uploads": True},
    ),
    (
        "objects grow, other names",
        "objects grow under names that CosPaths do not show",
        {"growing_objects": True, "object_names": "gz"},
    ),
    ("tiny objects", "every object has 1 KiB", {"object_sizes": "tiny"}),
    (
        "data disks later, not described",
        "the same, named by nobody: CosPaths show system disks, DescribeImages nothing",
        {
            "data_disks_after": 300.0,
            "images": TWO_DISKS,
            "cos_paths": "system-only",
            "describe": "no-snapshots",
        },
    ),
    (
        "data disks later, uploads hidden",
        "data disks come later, CosPaths show system disks, uploads are hidden",
        {
            "data_disks_after": 300.0,
            "images": TWO_DISKS,
            "cos_paths": "system-only",
            "hide_uploads": True,
        },
    ),
    (
        "first trace late, uploads hidden",
        "nothing shows before the objects",
        {"queue_delay": 600.0, "hide_uploads": True},
    ),
    (
        "durations differ much",
        "most exports take 2.5 minutes, some half an hour",
        {"duration": Duration("lognormal", seconds=150.0, spread=1.0)},
    ),
    (
        "a tenth never delivered",
        "some exports end without objects",
        {"deliveries": (Delivery("never", chance=0.1),)},
    ),
    (
        "a tenth stuck",
        "some exports never end",
        {"deliveries": (Delivery("stuck", chance=0.1),)},
    ),
)

_UNLISTED = {"buckets": {BUCKET: BucketSettings(deny=("GetBucket", "ListMultipartUploads"))}}

LISTINGS = _of(
    "listings",
    ("uploads hidden", "List Multipart Uploads is empty", {"hide_uploads": True}),
    ("listings empty", "both listings are empty, HEAD finds objects", {"empty_listings": True}),
    (
        "listings ignore the prefix",
        "both listings show every key",
        {"listings_ignore_prefix": True},
    ),
    (
        "prefix ignored everywhere",
        "exports and listings ignore the prefix",
        {"listings_ignore_prefix": True, "ignore_prefix": True},
    ),
    (
        "listings ignore the prefix, old objects",
        "listings show last month's objects too",
        {"listings_ignore_prefix": True, **_OLD},
    ),
    ("HEAD finds anything", "HEAD answers 200 for every key", {"head_finds_anything": True}),
    (
        "HEAD finds anything, listings empty",
        "the same, and listings show nothing",
        {"head_finds_anything": True, "empty_listings": True},
    ),
    (
        "listings forbidden",
        "both listings are refused",
        _UNLISTED,
    ),
    (
        "listings forbidden, other names",
        "the same, and objects are compressed, which CosPaths do not say",
        {**_UNLISTED, "object_names": "gz"},
    ),
    (
        "listings forbidden, nothing described",
        "the same, DescribeImages is empty, and so are CosPaths",
        {**_UNLISTED, "describe": "nothing", "cos_paths": "empty"},
    ),
    (
        "HEAD forbidden",
        "HEAD of objects is refused",
        {"buckets": {BUCKET: BucketSettings(deny=("HeadObject",))}},
    ),
    (
        "bucket not readable",
        "every request to COS is refused",
        {
            "buckets": {
                BUCKET: BucketSettings(
                    deny=("HeadObject", "HeadBucket", "GetBucket", "ListMultipartUploads")
                )
            }
        },
    ),
    (
        "COS fails, 20 %",
        "COS answers 503 or resets the connection",
        {
            "faults": (
                Fault("gateway", action="cos", status=503, chance=0.1),
                Fault("reset", action="cos", chance=0.1),
            )
        },
    ),
    ("COS answers pages", "COS answers HTML with status 200", _fault("html", "cos")),
)

CODES = _of(
    "codes and caps",
    (
        "cap as unlisted operation",
        "the cap is UnsupportedOperation.TooManyTasks",
        {"cap_code": "UnsupportedOperation.TooManyTasks"},
    ),
    (
        "cap as listed operation",
        "the cap is a listed permanent code",
        {"cap_code": "UnsupportedOperation.ImageTooLargeExportUnsupported"},
    ),
    ("cap as busy image", "the cap is InvalidImageState", {"cap_code": _STATE}),
    (
        "cap as missing right",
        "the cap is UnauthorizedOperation",
        {"cap_code": "UnauthorizedOperation"},
    ),
    ("cap as unknown word", "the cap is TooManyRunningTasks", {"cap_code": "TooManyRunningTasks"}),
    (
        "busy images accepted, prefix dropped",
        "the same, and the prefix is dropped",
        {"accept_busy_images": True, "ignore_prefix": True},
    ),
    (
        "busy images accepted, listings empty",
        "the same, and listings are empty",
        {"accept_busy_images": True, "empty_listings": True},
    ),
    (
        "busy images accepted, uploads hidden, late",
        "the same, and nothing shows for ten minutes",
        {"accept_busy_images": True, "hide_uploads": True, "queue_delay": 600.0},
    ),
    (
        "signature refused, 5 %",
        "AuthFailure.SignatureFailure now and then",
        _refusal("AuthFailure.SignatureFailure", chance=0.05),
    ),
    (
        "not authorized, 5 %",
        "UnauthorizedOperation now and then",
        _refusal("UnauthorizedOperation", chance=0.05),
    ),
    (
        "image not found, 5 %",
        "InvalidImageId.NotFound for images that exist",
        _refusal("InvalidImageId.NotFound", chance=0.05),
    ),
    (
        "quota, 15 times",
        "LimitExceeded for the first requests",
        _refusal("LimitExceeded", times=15),
    ),
    (
        "unlisted code, 5 %",
        "a code that no page lists, now and then",
        _refusal("OperationConflict.Retry", chance=0.05),
    ),
    (
        "unlisted code",
        "every answer is a code that no page lists, and nothing begins",
        _refusal("OperationConflict.Retry"),
    ),
    (
        "listed permanent code, 30 times",
        "InvalidParameterValue for a while",
        _refusal("InvalidParameterValue", times=30),
    ),
    (
        "image not found, always",
        "every image is refused as not found, though described",
        _refusal("InvalidImageId.NotFound"),
    ),
)

DESCRIBING = _of(
    "describing",
    ("no sizes", "rows lack the sizes", {"describe": "no-sizes"}),
    ("no snapshots", "rows lack the snapshots", {"describe": "no-snapshots"}),
    (
        "other snapshots",
        "rows show other snapshot ids than the keys",
        {"describe": "other-snapshots"},
    ),
    ("no rows", "DescribeImages shows no images", {"describe": "nothing"}),
    (
        "describing fails",
        "DescribeImages answers HTTP 500",
        _fault("gateway", DESCRIBE, status=500),
    ),
    (
        "describing answers pages",
        "DescribeImages answers HTML with status 200",
        _fault("html", DESCRIBE),
    ),
    (
        "describing over a quota",
        "DescribeImages answers LimitExceeded",
        _refusal("LimitExceeded", DESCRIBE),
    ),
    (
        "describing forbidden",
        "DescribeImages is not authorized",
        _refusal("UnauthorizedOperation", DESCRIBE),
    ),
)

CLOCKS = _of(
    "clocks",
    ("vendor an hour ahead", "all clocks of the vendor are an hour ahead", {"skew": 3600.0}),
    (
        "Date of COS an hour ahead",
        "only the Date header of COS is wrong",
        {"cos_date_skew": 3600.0},
    ),
    (
        "Date of CVM an hour ahead",
        "only the Date header of CVM is wrong",
        {"cvm_date_skew": 3600.0},
    ),
    ("COS an hour behind", "the clock of COS alone is behind", {"cos_skew": -3600.0}),
    (
        "COS two minutes behind, old objects",
        "objects seem older than their request",
        {"cos_skew": -120.0, **_OLD},
    ),
    (
        "COS a month ahead, old objects",
        "last month's objects seem new",
        {"cos_skew": 31 * 86_400.0, **_OLD},
    ),
    (
        "signature expired, 5 %",
        "AuthFailure.SignatureExpire now and then",
        _refusal("AuthFailure.SignatureExpire", chance=0.05),
    ),
)

_BOTH = (REGION, OTHER_REGION)

REGIONS = [
    *_of(
        "regions and redirects",
        (
            "bucket in another region",
            "COS redirects to another region",
            {"buckets": {BUCKET: BucketSettings(redirect=OTHER_REGION)}},
        ),
        (
            "bucket unknown to COS",
            "CVM writes to the bucket, COS does not know it",
            _refusal("NoSuchBucket", "cos"),
        ),
        (
            "bucket missing",
            "neither CVM nor COS knows the bucket",
            {"buckets": {BUCKET: BucketSettings(missing=True)}},
        ),
        (
            "COS behind a login page",
            "a proxy redirects every request to COS",
            _fault("redirect", "cos"),
        ),
        (
            "CVM behind a login page",
            "a proxy redirects every request to CVM",
            _fault("redirect", "cvm"),
        ),
        (
            "exports redirected after processing",
            "every ExportImages begins, and is answered with a redirect",
            _fault("redirect", after=True),
        ),
    ),
    *_of(
        "regions and redirects",
        (
            "two regions, bucket in one",
            "jobs of the other region are redirected by COS",
            {"buckets": {BUCKET: BucketSettings(redirect=OTHER_REGION)}},
        ),
        (
            "two regions, caps differ",
            "one region has a cap of 2, told as an unlisted code",
            {
                "caps": {REGION: 2, OTHER_REGION: 10},
                "cap_code": "UnsupportedOperation.TooManyTasks",
            },
        ),
        regions=_BOTH,
    ),
]

VARIATIONS: Sequence[Variation] = (
    *ANSWERS,
    *RETRIED,
    *NAMES,
    *OBJECTS,
    *LISTINGS,
    *CODES,
    *DESCRIBING,
    *CLOCKS,
    *REGIONS,
)

_TOUCH_THE_GUARANTEE = (
    "as documented",
    "busy although begun, 30 %",
    "capacity although begun, 10 %",
    "value refused although begun, 5 %, retry",
    "without TaskId",
    "CosPaths empty",
    "CosPaths of system disks",
    "objects with .gz",
    "prefix dropped, old objects",
    "exact names, old objects",
    "four images, other snapshot ids shown",
    "objects grow",
    "uploads hidden",
    "listings empty",
    "listings ignore the prefix, old objects",
    "HEAD finds anything",
    "cap as unlisted operation",
    "busy images accepted, uploads hidden, late",
    "busy images accepted, listings empty",
    "exports redirected after processing",
)

SIDE_BY_SIDE = tuple(one for one in VARIATIONS if one.name in _TOUCH_THE_GUARANTEE)
"""Those that two processes also run in real time, with one of them killed."""
assert len(SIDE_BY_SIDE) == len(_TOUCH_THE_GUARANTEE), "each name is that of a variation"
