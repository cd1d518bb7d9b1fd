"""The states of a job and the one table of transitions between them."""

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """What is known about one export."""

    QUEUED = "queued"
    """Waits to be sent; the reason is stored."""
    SENDING = "sending"
    """Claimed: the request may have been sent; a process owns the job under a lease."""
    UNKNOWN = "unknown"
    """The request may have been applied; there is no answer."""
    ACCEPTED = "accepted"
    """There is a TaskId with CosPaths, or the export was found in the bucket."""
    VERIFIED = "verified"
    """Final: every required object was seen in the bucket."""
    FAILED = "failed"
    """Final: code, message and remedy are stored."""
    CANCELLED = "cancelled"
    """Final: cancelled by an operator while it was queued."""


_S = JobState


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    # a late answer may reach a job that was queued again after orphan recovery
    _S.QUEUED: frozenset({_S.SENDING, _S.ACCEPTED, _S.CANCELLED}),
    _S.SENDING: frozenset({_S.QUEUED, _S.UNKNOWN, _S.ACCEPTED, _S.FAILED}),
    _S.UNKNOWN: frozenset({_S.QUEUED, _S.ACCEPTED, _S.FAILED}),
    _S.ACCEPTED: frozenset({_S.VERIFIED, _S.FAILED}),
    _S.VERIFIED: frozenset(),
    # an operator's retry (to `unknown` if any attempt may have been applied),
    # or a late answer to the last of several requests that seemed lost
    _S.FAILED: frozenset({_S.QUEUED, _S.UNKNOWN, _S.ACCEPTED}),
    _S.CANCELLED: frozenset({_S.QUEUED, _S.UNKNOWN, _S.ACCEPTED}),
}
"""The only transition table: guard, CHECK constraint and the diagram in the README follow it."""


FINAL: frozenset[JobState] = frozenset({_S.VERIFIED, _S.FAILED, _S.CANCELLED})


LIVING: frozenset[JobState] = frozenset(JobState) - FINAL


UNDER_WAY: frozenset[JobState] = frozenset({_S.SENDING, _S.UNKNOWN, _S.ACCEPTED})
"""States in which an export may count against the vendor's cap on running exports."""
