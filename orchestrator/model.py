"""The words of the domain: what crosses a border between two parts is declared here, frozen."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.job_states import JobState

NOT_SENT = "Orchestrator.NotSent"
"""Code of an attempt whose request never left."""


NOT_RULED_OUT = "absence not proven"
"""Reason of an unknown job that the bucket does not settle, so that an operator must decide."""


class ImageFormat(StrEnum):
    """Formats that ExportImages writes; the vendor's default is RAW."""

    RAW = "RAW"
    QCOW2 = "QCOW2"
    VHD = "VHD"
    VMDK = "VMDK"


class Reaction(StrEnum):
    """What an answer, or the lack of one, calls for."""

    ACCEPT = "accept"
    """The export runs."""
    DRY_RUN = "dry run"
    """A dry run would have succeeded."""
    RETRY = "retry"
    """Send again after a back-off; spends an attempt."""
    RECONCILE = "reconcile"
    """May have taken effect: look into the bucket before anything is sent again."""
    SLOW = "slow"
    """Too many requests in a second: everyone slows down a little; spends nothing."""
    PAUSE = "pause"
    """The endpoint cannot be reached: one prober, the rest waits; spends nothing."""
    CAPACITY = "capacity"
    """Too many exports run: the whole scope waits at its gate; spends nothing."""
    BUSY = "busy"
    """This image is occupied: it waits; spends nothing."""
    RESIGN = "resign"
    """The clocks differ: once again with the server's time, then stop."""
    REFRESH = "refresh"
    """The token has run out: once again with new credentials, then stop."""
    WITHDRAW = "withdraw"
    """It never left: the job waits as before; spends nothing."""
    FAIL = "fail"
    """Never will work for this job."""
    STOP = "stop"
    """Will not work for anything in the scope until a person acts."""


class Effect(StrEnum):
    """Whether an export may have begun."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


class Scope(StrEnum):
    """What a stop holds up."""

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
    """The right to send one attempt of one job, and the intent to do so, made durable.

    Args:
        attempt: number of this attempt, from 1; fences every later write.
        claimed_at: when it was taken, on the store's clock.
        signed_at: the time that goes into the signature, in the server's time; never renewed.
        maybe_applied: an earlier attempt may have taken effect, so the bucket is looked at first.
        probe: sent to find out whether the closed gate has room again.
        attempts_charged: attempts that counted, before this one.
        waits: postponements in a row that counted for nothing and were the job's own.
        last_code: what the attempt before this one was answered with.
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
    last_code: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer to ExportImages, read but not judged.

    Args:
        http_status: status of the answer.
        task_id: unsigned 64-bit number of the vendor's task, where the body holds one.
        cos_paths: as the vendor wrote them, with their leading slash.
        error_code: whole vendor code, where the body holds an error.
        excerpt: first 200 characters of a body that is not an API answer.
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
    """A vendor's code, or one of our own for what the network did, and what it calls for.

    Args:
        effect: whether an export may have begun when this is the answer.
        scope: what a stop holds up; only with `Reaction.STOP` and what may turn into it.
        remedy: one sentence for the user.
    """

    name: str
    reaction: Reaction
    effect: Effect
    remedy: str
    scope: Scope | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt: a code of the table with what the answer carried."""

    code: Code
    message: str = ""
    request_id: str | None = None
    http_status: int | None = None
    task_id: int | None = None
    cos_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The next state of a job, and what everyone else should know.

    Args:
        reason: one word for why the job is where it is, as in ``capacity``.
        delay: how long the job rests before it is looked at again.
        spends: whether the attempt counts.
        maybe_applied: an export may run that we hold no answer for.
    """

    state: JobState
    reason: str
    delay: timedelta = timedelta()
    charges_attempt: bool = False
    maybe_applied: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of an image: what its object will be called after, and its size."""

    snapshot_id: str
    usage: str
    """``SYSTEM_DISK`` or ``DATA_DISK``."""
    size_gib: int


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What DescribeImages says about an image."""

    image_id: str
    state: str
    name: str = ""
    disks: tuple[Disk, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """An object in a bucket, as a HEAD or a listing shows it.

    Args:
        size: bytes.
        etag: without quotes; no MD5 for an object written in parts.
        crc64: unsigned 64-bit CRC64-ECMA in decimal; only a HEAD tells it.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime | None = None
    crc64: str | None = None
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class UploadFacts:
    """A multipart upload that has not ended."""

    key: str
    upload_id: str
    initiated: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: every field narrows, values of one field mean "or", ``*`` matches anything.

    Args:
        since: created at this moment or later.
        until: created before this moment.
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
    """Something that a person has to mend before more can be sent.

    Args:
        passes: running again later may help, without anybody's doing.
    """

    scope: Scope
    value: str
    code: str
    message: str
    remedy: str
    passes: bool = False
