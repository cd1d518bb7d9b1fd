"""What can be changed while the simulator runs: limits, time, images, buckets and misfortunes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When something out of the ordinary happens.

    Args:
        images: only to requests that name one of these images; empty is any request.
        chance: probability from 0 to 1, drawn anew for each request that fits.
        times: how often at most; ``None`` is without end.
    """

    images: tuple[str, ...] = ()
    chance: float = 1.0
    times: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal(Rule):
    """The service answers with a code.

    Args:
        code: any code, known to the vendor or not.
        action: an action's name, a service (``cvm``, ``cos``) or ``*``.
        after: the export begins all the same.
    """

    code: str
    action: str = "ExportImages"
    after: bool = False


@dataclass(frozen=True, slots=True)
class Fault(Rule):
    """The way to the service, or back, goes wrong.

    Args:
        kind: ``latency`` slows a request down, half of it on the way in; ``reset`` cuts the
            connection; ``half`` cuts it in the middle of the answer; ``hang`` never answers;
            ``gateway`` answers HTML with `status`; ``html`` does so with 200; ``bare`` answers
            JSON without ``Response``.
        action: an action's name, a service (``cvm``, ``cos``) or ``*``.
        after: the request is processed first; ``half`` always is.
        seconds: of ``latency``.
        jitter: seconds of ``latency`` added at random.
        status: HTTP status of ``gateway``.
    """

    kind: Literal["latency", "reset", "half", "hang", "gateway", "html", "bare"]
    action: str = "*"
    after: bool = False
    seconds: float = 0.0
    jitter: float = 0.0
    status: int = 502


@dataclass(frozen=True, slots=True)
class Delivery(Rule):
    """An accepted export does not bring what it should.

    Args:
        kind: ``never`` ends without objects; ``partial`` leaves out the last disk; ``empty``
            writes objects of no bytes; ``stuck`` goes on for ever and keeps its place.
    """

    kind: Literal["never", "partial", "empty", "stuck"]


@dataclass(frozen=True, slots=True)
class Duration:
    """How long an export runs.

    Args:
        kind: ``fixed``; ``uniform`` within ``seconds`` times ``1 ± spread``; ``lognormal`` with
            the median ``seconds`` and the sigma ``spread``.
        seconds: of an export whatever its size.
        spread: share of the seconds, or sigma.
        per_gib: seconds added for each GiB of the image's disks.
    """

    kind: Literal["fixed", "uniform", "lognormal"] = "fixed"
    seconds: float = 1.0
    spread: float = 0.5
    per_gib: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """What one image is; what is left out stays as it was.

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
    """What one bucket is; a bucket without settings exists wherever it is looked for.

    Args:
        region: the only region where it is found.
        missing: the bucket does not exist.
        deny: refused to everyone: ``HeadObject``, ``HeadBucket``, ``GetBucket``,
            ``ListMultipartUploads`` or ``ExportImages`` (writing exports).
    """

    region: str | None = None
    missing: bool = False
    deny: tuple[str, ...] = ()
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that may change while the simulator runs.

    Args:
        cap: export tasks that run at once per account and region; ``None`` is without end.
        caps: the same of single regions, in place of `cap`.
        occupied: places of the cap that a neighbour holds.
        limits: requests a second per account and action; 0, or none given, is without end.
        skew: seconds that the server's clock is ahead of the real one.
        duration: of exports accepted from now on.
        queue_delay: seconds from acceptance until the uploads begin.
        dry_run_code: answer to a passed dry run, such as ``DryRunOperation``; ``None`` is success.
        any_image: every well-formed image id exists; ``None`` is yes without a catalogue.
        absent_roles: names of CVM roles that do not exist.
        instance_role: the role of the instance that the metadata service tells of; empty is none.
        lent_for: seconds that temporary keys are good for; 0 is as long as they are asked for.
        revoked: secret ids that are good no longer.
        withdrawn: secret ids of temporary keys whose token counts as expired.
        ignore_prefix: exports are named without FileNamePrefixList, in the bucket and in CosPaths.
        hide_uploads: List Multipart Uploads finds no uploads.
        empty_listings: GET Bucket and List Multipart Uploads find nothing; HEAD finds objects.
        images: by image id, over the catalogue.
        buckets: by name.
        codes: refusals by rule, the first that fits.
        faults: the first that fits, and the first latency beside it.
        deliveries: the first that fits.
    """

    cap: int | None = 10
    caps: Mapping[str, int] = field(default_factory=dict)
    occupied: int = 0
    limits: Mapping[str, int] = field(
        default_factory=lambda: {"ExportImages": 20, "DescribeImages": 40, "DescribeRegions": 20}
    )
    skew: float = 0.0
    duration: Duration = Duration()
    queue_delay: float = 0.05
    dry_run_code: str | None = None
    any_image: bool | None = None
    absent_roles: tuple[str, ...] = ()
    instance_role: str = ""
    lent_for: float = 0.0
    revoked: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    ignore_prefix: bool = False
    hide_uploads: bool = False
    empty_listings: bool = False
    images: Mapping[str, ImageSettings] = field(default_factory=dict)
    buckets: Mapping[str, BucketSettings] = field(default_factory=dict)
    codes: tuple[Refusal, ...] = ()
    faults: tuple[Fault, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
