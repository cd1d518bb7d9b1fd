"""The next state of a job after an outcome: a pure function, tested as a table."""

from dataclasses import dataclass
from datetime import timedelta

from orchestrator.cloud.error_codes import MAY_CONCERN_ONE_IMAGE, NOT_FOUND
from orchestrator.job_states import JobState
from orchestrator.limits.backoff import backoff
from orchestrator.limits.region_waits import EXPORT_CAP
from orchestrator.model import NOT_SENT, Lease, Outcome, Reaction

_SHARED = {
    Reaction.SLOW: "rate",
    Reaction.WITHDRAW: "not sent",
    Reaction.PAUSE: "network",
    Reaction.CAPACITY: "capacity",
}
"""Reasons for which all jobs wait together; they do not count as deferrals of one job."""

MAX_DEFERRALS = 1500
"""Deferrals in a row after which a busy image fails: about one day at one per minute."""

_MAX_DENIALS = 5
"""Deferrals in a row after which a job fails if it is denied once more and no other job is."""

_MAX_NOT_FOUND = 5
"""Deferrals in a row after which a job fails if its image is still not found."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next state of a job after an outcome.

    Args:
        reason: why the job is in this state, such as ``capacity``.
        delay: time until the job is due again.
        charges_attempt: whether the attempt counts against the maximum.
    """

    state: JobState
    reason: str
    delay: timedelta = timedelta()
    charges_attempt: bool = False


def decide(
    lease: Lease,
    outcome: Outcome,
    *,
    jitter: float,
    endpoint_fails: bool = False,
) -> Decision:
    """Return the next state of a job, its reason and whether to charge the attempt.

    Args:
        jitter: a number from 0 to 1 that spreads the back-off.
        endpoint_fails: the endpoint fails for all requests, so no attempt is charged.
    """
    match outcome.code.reaction:
        case Reaction.ACCEPT:
            return Decision(JobState.ACCEPTED, "exporting", charges_attempt=True)
        case Reaction.RECONCILE:
            reason = "answer lost" if outcome.http_status is None else "answer unclear"
            return Decision(JobState.UNKNOWN, reason, charges_attempt=not endpoint_fails)
        case Reaction.CAPACITY if outcome.code.name not in {EXPORT_CAP, NOT_SENT}:
            return Decision(JobState.QUEUED, "quota")
        case Reaction.SLOW | Reaction.WITHDRAW | Reaction.PAUSE | Reaction.CAPACITY as shared:
            return Decision(JobState.QUEUED, _SHARED[shared])
        case Reaction.SUSPECT_REGION:
            return Decision(
                JobState.QUEUED,
                "refusal that may concern the region",
                backoff(lease.deferrals, jitter),
            )
        case Reaction.BUSY if lease.image_broken or lease.deferrals >= MAX_DEFERRALS:
            return Decision(JobState.FAILED, "image not exportable")
        case Reaction.BUSY:
            return Decision(JobState.QUEUED, "image busy", backoff(lease.deferrals, jitter))
        case Reaction.HALT if _is_denied_alone(lease, outcome):
            return Decision(JobState.FAILED, "refused")
        case Reaction.HALT | Reaction.RESIGN | Reaction.REFRESH:
            reason = f"halted: {outcome.code.scope}"
            return Decision(JobState.QUEUED, reason, backoff(lease.deferrals, jitter))
        case Reaction.FAIL if contradicts_description(lease, outcome):
            return Decision(JobState.QUEUED, "image not found", backoff(lease.deferrals, jitter))
        case Reaction.FAIL | Reaction.RETRY:  # only an answer of COS leads to RETRY
            return Decision(JobState.FAILED, "refused", charges_attempt=True)


def is_maybe_applied(lease: Lease, decision: Decision) -> bool:
    """Return whether an export may be running afterwards whose answer is not known.

    A refusal does not show whether an earlier attempt began one.
    """
    is_lost = decision.state is JobState.UNKNOWN
    return is_lost or (lease.maybe_applied and decision.state is not JobState.ACCEPTED)


def own_deferrals(lease: Lease, outcome: Outcome) -> int:
    """Return this job's own deferrals in a row after an uncharged outcome.

    A deferral for which all jobs wait together does not count.
    """
    return lease.deferrals + (outcome.code.reaction not in _SHARED)


def contradicts_description(lease: Lease, outcome: Outcome) -> bool:
    """Return whether an image that DescribeImages has shown is refused as not found.

    Such a refusal may be temporary. After `_MAX_NOT_FOUND` deferrals the result is false.
    """
    is_not_found = outcome.code.name in NOT_FOUND
    return is_not_found and lease.images_shown and lease.deferrals < _MAX_NOT_FOUND


def _is_denied_alone(lease: Lease, outcome: Outcome) -> bool:
    """Return whether this job was denied repeatedly with the same code.

    If another job is denied too, the scope of both is halted instead.
    """
    denied = outcome.code.name in MAY_CONCERN_ONE_IMAGE
    return denied and lease.last_code == outcome.code.name and lease.deferrals >= _MAX_DENIALS
