"""The states of a job and the one table of transitions between them."""

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """What we know about one export."""

    QUEUED = "queued"
    """Waits to be sent; the reason is stored."""
    SENDING = "sending"
    """The intent is durable; the request may have left; owned under a lease."""
    UNKNOWN = "unknown"
    """May have taken effect; no answer is held."""
    ACCEPTED = "accepted"
    """TaskId and CosPaths are held, or the export was found in the bucket."""
    VERIFIED = "verified"
    """Final: every expected object was seen in the bucket."""
    FAILED = "failed"
    """Final: code, message and remedy are held."""
    CANCELLED = "cancelled"
    """Final: given up by a person while it waited."""


_S = JobState


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    # a late answer may still reach a job that a rescuer has put back into the queue
    _S.QUEUED: frozenset({_S.SENDING, _S.ACCEPTED, _S.CANCELLED}),
    _S.SENDING: frozenset({_S.QUEUED, _S.UNKNOWN, _S.ACCEPTED, _S.FAILED}),
    _S.UNKNOWN: frozenset({_S.QUEUED, _S.ACCEPTED, _S.FAILED}),
    _S.ACCEPTED: frozenset({_S.VERIFIED, _S.FAILED}),
    _S.VERIFIED: frozenset(),
    # a person's retry; to `unknown` where any attempt may have taken effect
    # or a late answer to the last of several requests that seemed lost
    _S.FAILED: frozenset({_S.QUEUED, _S.UNKNOWN, _S.ACCEPTED}),
    _S.CANCELLED: frozenset({_S.QUEUED, _S.UNKNOWN, _S.ACCEPTED}),
}
"""The one transition table: the guard, the CHECK constraint and the README's diagram follow it."""


FINAL: frozenset[JobState] = frozenset({_S.VERIFIED, _S.FAILED, _S.CANCELLED})


LIVING: frozenset[JobState] = frozenset(JobState) - FINAL


UNDER_WAY: frozenset[JobState] = frozenset({_S.SENDING, _S.UNKNOWN, _S.ACCEPTED})
"""States in which the export may occupy one of the vendor's places."""
