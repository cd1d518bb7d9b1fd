"""The options that a simulator is started with, and the settings that can change while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a refusal or fault happens.

    Args:
        images: only for requests that name one of these images; empty is any request.
        chance: probability from 0 to 1, drawn for each matching request.
        times: maximum number of uses; ``None`` is no limit.
    """

    images: tuple[str, ...] = ()
    chance: float = 1.0
    times: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal(Rule):
    """The service answers with an error code.

    Args:
        code: any code, documented by the vendor or not.
        action: an action's name, a service (``cvm``, ``cos``) or ``*``.
        after: the export begins nevertheless.
    """

    code: str
    action: str = "ExportImages"
    after: bool = False


@dataclass(frozen=True, slots=True)
class Fault(Rule):
    """A network fault on the way to the service or back.

    Args:
        kind: ``latency`` delays a request, half of it before processing; ``reset`` resets the
            connection; ``half`` closes it in the middle of the answer; ``hang`` never answers;
            ``gateway`` answers HTML with `status`; ``html`` answers HTML with status 200;
            ``bare`` answers JSON without ``Response``; ``redirect`` answers 302 with the address
            of a login page; ``no-task-id`` and ``no-cos-paths`` leave out that part of the answer.
        action: an action's name, a service (``cvm``, ``cos``) or ``*``.
        after: the request is processed first; with ``half``, ``no-task-id`` and ``no-cos-paths``
            it always is.
        seconds: of ``latency``.
        jitter: maximum of the seconds that are added to ``latency`` at random.
        status: HTTP status of ``gateway``.
    """

    kind: Literal[
        "latency",
        "reset",
        "half",
        "hang",
        "gateway",
        "html",
        "bare",
        "redirect",
        "no-task-id",
        "no-cos-paths",
    ]
    action: str = "*"
    after: bool = False
    seconds: float = 0.0
    jitter: float = 0.0
    status: int = 502


@dataclass(frozen=True, slots=True)
class Delivery(Rule):
    """An accepted export that does not write what it should.

    Args:
        kind: ``never`` ends without objects; ``partial`` leaves out the last disk; ``empty``
            writes empty objects; ``stuck`` never ends and counts against the cap.
    """

    kind: Literal["never", "partial", "empty", "stuck"]


@dataclass(frozen=True, slots=True)
class Duration:
    """How long an export takes: a random part, plus a part for its size.

    Args:
        kind: ``fixed``: the random part is ``seconds``; ``uniform``: it lies between
            ``seconds * (1 - spread)`` and ``seconds * (1 + spread)``; ``lognormal``: its median is
            ``seconds`` and its sigma is ``spread``.
        seconds: see ``kind``.
        spread: see ``kind``.
        per_gib: seconds added for each GiB of the exported disks.
    """

    kind: Literal["fixed", "uniform", "lognormal"] = "fixed"
    seconds: float = 1.0
    spread: float = 0.5
    per_gib: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The properties of one image; ``None`` leaves a property unchanged.

    Args:
        sizes: GiB of its disks, the system disk first.
        missing: the image does not exist.
    """

    region: str | None = None
    name: str | None = None
    state: str | None = None
    type: str | None = None
    platform: str | None = None
    os_name: str | None = None
    sizes: tuple[int, ...] | None = None
    tags: Mapping[str, str] | None = None
    encrypted: bool | None = None
    market: bool | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """The properties of one bucket; a bucket without settings exists in every region.

    Args:
        region: the only region in which it exists.
        missing: the bucket does not exist.
        deny: operations that are refused: ``HeadObject``, ``HeadBucket``, ``GetBucket``,
            ``ListMultipartUploads`` or ``ExportImages`` (writing exports).
        redirect: the region in which it really is. Exports from every region are written there,
            and COS answers requests to another region with 301 and the name of this one.
    """

    region: str | None = None
    missing: bool = False
    deny: tuple[str, ...] = ()
    storage_class: str = "STANDARD"
    redirect: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that can change while the simulator runs.

    Args:
        cap: export tasks that run at the same time per account and region; ``None`` is no limit.
        caps: the same for single regions, instead of `cap`.
        cap_code: code of the refusal of a task beyond the cap.
        occupied: part of the cap that another user of the account occupies.
        limits: requests per second per account and action; 0 or no entry is no limit.
        skew: seconds by which the server's clock is ahead of the real one.
        cos_skew: seconds by which the clock of COS is ahead of the server's; it checks
            signatures, and gives objects and uploads their time.
        cvm_date_skew: seconds by which only the Date header of CVM is ahead.
        cos_date_skew: seconds by which only the Date header of COS is ahead of the clock of COS.
        duration: of exports accepted from now on.
        queue_delay: seconds from acceptance until the uploads begin.
        data_disks_after: seconds from the end of the system disk's upload to the end of the data
            disks', which begin then; 0 uploads all disks together.
        dry_run_code: answer to a good dry run, such as ``DryRunOperation``; ``None`` is success.
        accept_busy_images: an image that is being exported can be exported again.
        any_image: every well-formed image id exists; ``None`` means: if there is no catalogue.
        describe: what DescribeImages shows: rows without sizes, without snapshots or with other
            snapshot ids than the object keys have; ``nothing`` shows no rows.
        absent_roles: names of CVM roles that do not exist.
        instance_role: role of the instance, as the metadata service shows it; empty is none.
        lent_for: validity of temporary keys in seconds; 0 is as long as the client asks for.
        revoked: secret ids that are no longer valid.
        withdrawn: secret ids of temporary keys whose token counts as expired.
        ignore_prefix: object keys and CosPaths leave out FileNamePrefixList.
        cos_paths: form of CosPaths: URLs, percent-encoded, without the leading slash, with the
            bucket's name first, in capital letters after the prefix, only the system disks', one
            for each image, none.
        object_names: names of the objects and uploads, while CosPaths keep the documented ones:
            in capital letters after the prefix, with ``.gz`` added, split into two objects, with
            other snapshot ids, or ``one-file`` for all disks of an image.
        object_sizes: ``tiny`` writes objects of 1 KiB.
        old_objects: every image has objects of last month under its names without prefix; COS
            finds them by keys and prefixes that begin with an image id.
        growing_objects: objects show from the start of the upload, and grow until its end.
        hide_uploads: List Multipart Uploads shows no uploads.
        empty_listings: GET Bucket and List Multipart Uploads show nothing; HEAD finds objects.
        listings_ignore_prefix: both listings also show keys without the prefix.
        head_finds_anything: HEAD finds an object, written now, under every key without one.
        images: changes to the catalogue, by image id.
        buckets: by name.
        codes: refusals; the first matching rule is used.
        faults: the first matching fault and the first matching latency are used.
        deliveries: the first matching rule is used.
    """

    cap: int | None = 10
    caps: Mapping[str, int] = field(default_factory=dict)
    cap_code: str = "LimitExceeded.ExportImageTaskLimitExceeded"
    occupied: int = 0
    limits: Mapping[str, int] = field(
        default_factory=lambda: {"ExportImages": 20, "DescribeImages": 40, "DescribeRegions": 20}
    )
    skew: float = 0.0
    cos_skew: float = 0.0
    cvm_date_skew: float = 0.0
    cos_date_skew: float = 0.0
    duration: Duration = Duration()
    queue_delay: float = 0.05
    data_disks_after: float = 0.0
    dry_run_code: str | None = None
    accept_busy_images: bool = False
    any_image: bool | None = None
    describe: Literal["documented", "no-sizes", "no-snapshots", "other-snapshots", "nothing"] = (
        "documented"
    )
    absent_roles: tuple[str, ...] = ()
    instance_role: str = ""
    lent_for: float = 0.0
    revoked: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    ignore_prefix: bool = False
    cos_paths: Literal[
        "documented",
        "url",
        "encoded",
        "no-slash",
        "bucket-first",
        "uppercase",
        "system-only",
        "one-file",
        "empty",
    ] = "documented"
    object_names: Literal[
        "documented", "uppercase", "gz", "split", "other-snapshots", "one-file"
    ] = "documented"
    object_sizes: Literal["documented", "tiny"] = "documented"
    old_objects: bool = False
    growing_objects: bool = False
    hide_uploads: bool = False
    empty_listings: bool = False
    listings_ignore_prefix: bool = False
    head_finds_anything: bool = False
    images: Mapping[str, ImageSettings] = field(default_factory=dict)
    buckets: Mapping[str, BucketSettings] = field(default_factory=dict)
    codes: tuple[Refusal, ...] = ()
    faults: tuple[Fault, ...] = ()
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """A credential that the simulator accepts.

    Args:
        account: the sub-account whose limits it uses; several keys can share one.
        token: a temporary key has one, and is valid only together with it.
        expires_at: seconds since the epoch, on the server's clock; ``None`` is never.
    """

    secret_id: str
    secret_key: str = field(repr=False)
    account: str = "100000000001"
    token: str | None = field(default=None, repr=False)
    expires_at: float | None = None


DEFAULT_KEY = Key("AKIDsimulator0000000000000000000000", "simulator-secret-key")
"""The default credential."""


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """The options of a simulator, fixed while it runs.

    Args:
        port: port on 127.0.0.1; 0 lets the system choose a free one.
        seed: seed of all random choices; the same requests in the same order get the same answers.
        images: size of the generated catalogue; 0 is none, and then any image exists.
        regions: regions over which the catalogue is spread.
        ledger: file to which a JSON line is appended for each request.
        keys: the accepted credentials.
        settings: the settings at the start.
    """

    port: int = 0
    seed: int = 1
    images: int = 0
    regions: tuple[str, ...] = ("ap-singapore",)
    ledger: Path | None = None
    keys: tuple[Key, ...] = (DEFAULT_KEY,)
    settings: Settings = field(default_factory=Settings)
