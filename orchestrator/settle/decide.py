"""What to do about an outcome: a pure function, tested as a table."""

from datetime import timedelta

from orchestrator.model import Decision, JobState, Lease, Outcome, Reaction, Scope
from orchestrator.pace.backoff import backoff

LONGEST_BUSY_WAIT = timedelta(hours=24)
"""An image that is busy for longer than this is not waited for."""


def decide(lease: Lease, outcome: Outcome, *, max_attempts: int, chance: float) -> Decision:
    """The next state of the job, and what everyone else should know.

    Args:
        max_attempts: attempts that count before the job fails.
        chance: a number from 0 to 1 that spreads the waits.
    """
    doubted = lease.doubted
    match outcome.code.reaction:
        case Reaction.ACCEPT:
            return Decision(JobState.ACCEPTED, "exporting", spends=True)
        case Reaction.RECONCILE:
            return Decision(JobState.UNKNOWN, "answer lost", spends=True, doubted=True)
        case Reaction.RETRY if lease.spent + 1 >= max_attempts:
            return Decision(JobState.FAILED, "attempts used up", spends=True, doubted=doubted)
        case Reaction.RETRY:
            wait = backoff(lease.spent, chance)
            return _queued("retry", doubted=doubted, delay=wait, spends=True)
        case Reaction.SLOW:
            return _queued("rate", doubted=doubted)
        case Reaction.PAUSE:
            return _queued("network", doubted=doubted)
        case Reaction.CAPACITY:
            return _queued("capacity", doubted=doubted)
        case Reaction.BUSY if lease.image_broken or _has_waited_long(lease):
            return Decision(JobState.FAILED, "image not exportable", doubted=doubted)
        case Reaction.BUSY:
            return _queued("image busy", doubted=doubted, delay=backoff(lease.waits, chance))
        case Reaction.STOP | Reaction.RESIGN | Reaction.REFRESH:
            stop = outcome.code.scope
            wait = backoff(lease.waits, chance)
            return _queued(f"stopped: {stop}", doubted=doubted, delay=wait, stop=stop)
        case Reaction.FAIL | Reaction.DRY_RUN:
            return Decision(JobState.FAILED, "refused", spends=True, doubted=doubted)


def _queued(
    reason: str,
    *,
    doubted: bool,
    delay: timedelta = timedelta(),
    spends: bool = False,
    stop: Scope | None = None,
) -> Decision:
    return Decision(JobState.QUEUED, reason, delay=delay, spends=spends, doubted=doubted, stop=stop)


def _has_waited_long(lease: Lease) -> bool:
    return lease.claimed_at - lease.created_at > LONGEST_BUSY_WAIT
