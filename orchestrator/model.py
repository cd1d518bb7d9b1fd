"""The data classes that several packages share; all of them are frozen."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

NOT_SENT = "Orchestrator.NotSent"
"""Code of an attempt whose request was never sent."""

NOT_DELIVERED = "Orchestrator.NotDelivered"
"""Code of a job whose objects did not all arrive in time."""

NOT_RULED_OUT = "absence not proven"
"""Reason of an unknown job that the bucket does not resolve, so that an operator must decide."""


class ImageFormat(StrEnum):
    """Formats that ExportImages writes; the vendor's default is RAW."""

    RAW = "RAW"
    QCOW2 = "QCOW2"
    VHD = "VHD"
    VMDK = "VMDK"


class Reaction(StrEnum):
    """What the program does after an answer, or without one."""

    ACCEPT = "accept"
    """The export runs."""
    RETRY = "retry"
    """COS is asked again later; no answer of CVM leads to this."""
    RECONCILE = "reconcile"
    """It may have been applied: search the bucket before anything is sent again."""
    SLOW = "slow"
    """Too many requests per second: all processes slow down; nothing is charged."""
    PAUSE = "pause"
    """The endpoint cannot be reached: one probe at a time, nothing is charged."""
    CAPACITY = "capacity"
    """Too many exports are running: the whole region waits; nothing is charged."""
    BUSY = "busy"
    """This image is in use: its job waits; nothing is charged."""
    RESIGN = "resign"
    """The clocks differ: send once more with the server's time, then halt."""
    REFRESH = "refresh"
    """The token has expired: send once more with new credentials, then halt."""
    WITHDRAW = "withdraw"
    """It was not sent: the job waits as before; nothing is charged."""
    FAIL = "fail"
    """It will never work for this job."""
    SUSPECT_REGION = "suspect region"
    """A permanent refusal of many jobs may concern their region: it waits; nothing is charged."""
    HALT = "halt"
    """Nothing in this scope will work until an operator acts."""


HALTING = frozenset({Reaction.HALT, Reaction.RESIGN, Reaction.REFRESH})
"""Reactions that halt a scope, at once or after one more request."""


class Effect(StrEnum):
    """Whether an export may have begun."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


class Scope(StrEnum):
    """What a halt blocks."""

    CREDENTIAL = "credential"
    ACCOUNT = "account"
    CLOCK = "clock"
    ENDPOINT = "endpoint"
    REGION = "region"
    BUCKET = "bucket"
    ROLE = "role"


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """The body of one ExportImages call (source: the vendor's API page, input parameters)."""

    region: str
    image_ids: tuple[str, ...]
    bucket: str
    format: ImageFormat
    name_prefix: str
    only_root_disk: bool
    role_name: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The committed claim of one attempt of one job: the right and the intent to send it.

    Args:
        attempt: number of this attempt, from 1; every later write is fenced by it.
        claimed_at: time of the claim, on the store's clock.
        signed_at: date of the signature, in the server's time; never changed.
        maybe_applied: an earlier attempt may have started an export, so the bucket is checked.
        probe: sent to find out whether the region has capacity again.
        attempts_charged: charged attempts before this one.
        deferrals: uncharged attempts in a row for reasons of this job alone.
        images_shown: DescribeImages has shown all its images.
        last_code: code of the previous attempt.
    """

    job_id: int
    attempt: int
    owner: str
    profile: str
    order: ExportOrder
    claimed_at: datetime
    signed_at: datetime
    expires_at: datetime
    maybe_applied: bool = False
    exact_names: bool = False
    probe: bool = False
    attempts_charged: int = 0
    deferrals: int = 0
    image_broken: bool = False
    images_shown: bool = False
    last_code: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response of API 3.0, parsed but not classified.

    Args:
        http_status: status of the response.
        task_id: unsigned 64-bit number of the vendor's task, where the body holds one.
        cos_paths: as the vendor wrote them, with their leading slash.
        error_code: whole vendor code, where the body holds an error.
        excerpt: first 200 characters of a body that is not an API response, or of a redirect's
            target, after the proxy that it came through.
    """

    http_status: int
    request_id: str | None = None
    task_id: int | None = None
    cos_paths: tuple[str, ...] = ()
    error_code: str | None = None
    error_message: str | None = None
    excerpt: str | None = None


@dataclass(frozen=True, slots=True)
class Code:
    """An error code of the vendor, or one of our own for a network error, and the reaction to it.

    Args:
        effect: whether an export may have begun.
        scope: what a halt blocks; only for reactions that may lead to a halt.
        remedy: one sentence for the user.
    """

    name: str
    reaction: Reaction
    effect: Effect
    remedy: str
    scope: Scope | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt: a code of the table with what the response contained."""

    code: Code
    message: str = ""
    request_id: str | None = None
    http_status: int | None = None
    task_id: int | None = None
    cos_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of an image: the snapshot that names its object, and its size.

    Args:
        snapshot_id: empty if it is not known.
        usage: ``SYSTEM_DISK`` or ``DATA_DISK``; empty if it is not known.
        size_gib: 0 if it is not known.
    """

    snapshot_id: str
    usage: str
    size_gib: int


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What DescribeImages returns about an image.

    Args:
        state: empty if it is not known.
    """

    image_id: str
    state: str
    disks: tuple[Disk, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """An object in a bucket, as a HEAD request or a listing shows it.

    Args:
        size: bytes.
        etag: without quotes; not an MD5 sum if the object was uploaded in parts.
        crc64: unsigned 64-bit CRC64-ECMA in decimal; only HEAD returns it.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime | None = None
    crc64: str | None = None
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class UploadFacts:
    """An open multipart upload."""

    key: str
    initiated: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to select: fields are combined with "and", values of one field with "or".

    ``*`` in a value matches anything.

    Args:
        since: created at this time or later.
        until: created before this time.
    """

    batches: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    task_ids: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Halt:
    """A blocked scope: an operator must act before more can be sent.

    Args:
        is_temporary: a later run may work without any action.
    """

    scope: Scope
    value: str
    code: str
    message: str
    remedy: str
    is_temporary: bool = False


def bucket_location(region: str, bucket: str) -> str:
    """Return a bucket with its region, as users read it.

    A wrong region is the usual mistake.
    """
    return f"{region}/{bucket}"
