"""What follows from an outcome, as a table: one row for each reaction."""

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.cloud.error_codes import code_for
from orchestrator.job_states import JobState
from orchestrator.model import (
    Code,
    Decision,
    Effect,
    ExportOrder,
    ImageFormat,
    Lease,
    Outcome,
    Reaction,
    Scope,
)
from orchestrator.worker.outcome_policy import MAX_DEFERRALS, decide, own_deferrals
from tests.job_factory import BUCKET, LEASE_DURATION, NOON, PROFILE, REGION, TESTER

LEASE = Lease(
    job_id=1,
    attempt=3,
    owner=TESTER,
    profile=PROFILE,
    order=ExportOrder(REGION, ("img-00000001",), BUCKET, ImageFormat.RAW, "tag", False, None),
    claimed_at=NOON,
    signed_at=NOON,
    expires_at=NOON + LEASE_DURATION,
)
ATTEMPTS = 5
S = JobState


def decided(lease: Lease, reaction: Reaction, *, scope: Scope | None = None) -> Decision:
    outcome = Outcome(Code("Code", reaction, Effect.NO, "remedy", scope))
    return decide(lease, outcome, max_attempts=ATTEMPTS, jitter=1.0)


@pytest.mark.parametrize(
    ("reaction", "state", "reason", "charges_attempt"),
    [
        (Reaction.ACCEPT, S.ACCEPTED, "exporting", True),
        (Reaction.DRY_RUN, S.FAILED, "refused", True),
        (Reaction.RETRY, S.QUEUED, "retry", True),
        (Reaction.RECONCILE, S.UNKNOWN, "answer lost", True),
        (Reaction.SLOW, S.QUEUED, "rate", False),
        (Reaction.PAUSE, S.QUEUED, "network", False),
        (Reaction.CAPACITY, S.QUEUED, "quota", False),
        (Reaction.BUSY, S.QUEUED, "image busy", False),
        (Reaction.RESIGN, S.QUEUED, "stopped: clock", False),
        (Reaction.REFRESH, S.QUEUED, "stopped: clock", False),
        (Reaction.FAIL, S.FAILED, "refused", True),
        (Reaction.STOP, S.QUEUED, "stopped: clock", False),
    ],
)
def test_each_reaction_has_its_ending(
    reaction: Reaction, state: JobState, reason: str, charges_attempt: bool
) -> None:
    """State, reason and whether the attempt counts follow from the reaction alone."""
    decision = decided(LEASE, reaction, scope=Scope.CLOCK)
    assert (decision.state, decision.reason, decision.charges_attempt) == (
        state,
        reason,
        charges_attempt,
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("LimitExceeded.ExportImageTaskLimitExceeded", "capacity"),
        ("LimitExceeded", "quota"),
        ("LimitExceeded.SomethingElse", "quota"),
        ("ResourceInsufficient", "quota"),
        ("ResourceInsufficient.SpecifiedInstanceType", "quota"),
    ],
)
def test_only_the_export_cap_is_called_capacity(code: str, reason: str) -> None:
    """Our own exports free the cap as they end; any other quota may never be freed."""
    outcome = Outcome(code_for(code))
    decision = decide(LEASE, outcome, max_attempts=ATTEMPTS, jitter=1.0)
    assert (decision.state, decision.reason) == (S.QUEUED, reason)


def test_no_reaction_is_forgotten() -> None:
    """Every reaction there is comes to a decision, and waiting never spends an attempt."""
    for reaction in Reaction:
        decision = decided(replace(LEASE, attempts_charged=ATTEMPTS), reaction)
        assert decision.state in {S.QUEUED, S.ACCEPTED, S.UNKNOWN, S.FAILED}
        assert not (decision.charges_attempt and decision.state is S.QUEUED)


@pytest.mark.parametrize("reaction", sorted(set(Reaction) - {Reaction.ACCEPT, Reaction.RECONCILE}))
@pytest.mark.parametrize("maybe_applied", [False, True])
def test_doubt_is_kept(reaction: Reaction, maybe_applied: bool) -> None:
    """What an earlier attempt left in doubt no later refusal clears up."""
    assert (
        decided(replace(LEASE, maybe_applied=maybe_applied), reaction).maybe_applied
        is maybe_applied
    )


def test_a_lost_answer_begins_the_doubt_and_an_acceptance_ends_it() -> None:
    """Only an answer that is held, or its loss, changes what is in doubt."""
    assert decided(LEASE, Reaction.RECONCILE).maybe_applied
    assert not decided(replace(LEASE, maybe_applied=True), Reaction.ACCEPT).maybe_applied


@pytest.mark.parametrize(
    ("attempts_charged", "state"), [(3, S.QUEUED), (4, S.FAILED), (9, S.FAILED)]
)
def test_attempts_are_used_up(attempts_charged: int, state: JobState) -> None:
    """The attempt that reaches the allowance is the last one."""
    decision = decided(replace(LEASE, attempts_charged=attempts_charged), Reaction.RETRY)
    assert decision.state is state
    assert decision.reason == ("retry" if state is S.QUEUED else "attempts used up")


@pytest.mark.parametrize("reaction", [Reaction.SLOW, Reaction.PAUSE, Reaction.CAPACITY])
def test_what_concerns_everyone_waits_elsewhere(reaction: Reaction) -> None:
    """Rate, network and capacity are waited for at their own gate, not by each job."""
    assert decided(LEASE, reaction).delay == timedelta()


@pytest.mark.parametrize(
    ("reaction", "counter"),
    [
        (Reaction.RETRY, "attempts_charged"),
        (Reaction.BUSY, "deferrals"),
        (Reaction.STOP, "deferrals"),
        (Reaction.RESIGN, "deferrals"),
        (Reaction.REFRESH, "deferrals"),
    ],
)
def test_what_concerns_one_job_waits_longer_each_time(reaction: Reaction, counter: str) -> None:
    """The wait doubles with what has happened in a row, and ends at a minute."""
    deferrals = []
    for times in (0, 1, 2, 100):
        waited = replace(LEASE, deferrals=times)
        lease = replace(LEASE, attempts_charged=times) if counter == "attempts_charged" else waited
        outcome = Outcome(Code("Code", reaction, Effect.NO, "remedy"))
        deferrals.append(
            decide(lease, outcome, max_attempts=1000, jitter=1.0).delay.total_seconds()
        )
    assert deferrals == [1, 2, 4, 60]


def test_chance_spreads_the_waits() -> None:
    """The same refusal at the same time does not bring two jobs back together."""
    outcome = Outcome(Code("Code", Reaction.BUSY, Effect.NO, "remedy"))
    early = decide(LEASE, outcome, max_attempts=5, jitter=0.0)
    late = decide(LEASE, outcome, max_attempts=5, jitter=1.0)
    assert early.delay < late.delay


def test_an_image_that_is_broken_is_not_waited_for() -> None:
    """An image that failed to be created never becomes exportable."""
    decision = decided(replace(LEASE, image_broken=True), Reaction.BUSY)
    assert (decision.state, decision.reason) == (S.FAILED, "image not exportable")


def test_a_busy_image_is_not_waited_for_longer_than_a_day() -> None:
    """Whatever occupies it for so long will not end by itself."""
    for deferrals, state in [(MAX_DEFERRALS - 1, S.QUEUED), (MAX_DEFERRALS, S.FAILED)]:
        assert decided(replace(LEASE, deferrals=deferrals), Reaction.BUSY).state is state


@pytest.mark.parametrize("scope", Scope)
def test_a_stop_says_what_is_stopped(scope: Scope) -> None:
    """The job waits, and everyone learns what a person has to mend."""
    decision = decided(LEASE, Reaction.STOP, scope=scope)
    assert (decision.state, decision.reason) == (S.QUEUED, f"stopped: {scope}")


@pytest.mark.parametrize(
    ("name", "before", "deferrals", "state"),
    [
        ("AuthFailure.UnauthorizedOperation", None, 0, S.QUEUED),
        ("AuthFailure.UnauthorizedOperation", "AuthFailure.UnauthorizedOperation", 3, S.QUEUED),
        ("AuthFailure.UnauthorizedOperation", "LimitExceeded", 5, S.QUEUED),
        ("AuthFailure.UnauthorizedOperation", "AuthFailure.UnauthorizedOperation", 4, S.FAILED),
        ("AuthFailure.SignatureFailure", "AuthFailure.SignatureFailure", 9, S.QUEUED),
    ],
)
def test_an_image_that_is_denied_alone_fails_in_the_end(
    name: str, before: str | None, deferrals: int, state: JobState
) -> None:
    """A policy against one image is that image's own affair, after five denials in a row."""
    lease = replace(LEASE, last_code=before, deferrals=deferrals)
    assert decide(lease, Outcome(code_for(name)), max_attempts=5, jitter=0.5).state is state


@pytest.mark.parametrize("reaction", Reaction)
def test_only_waits_of_its_own_count_as_a_job_s_own(reaction: Reaction) -> None:
    """Whoever waits for a place, with all the others, has not been denied or found busy."""
    shared = {Reaction.SLOW, Reaction.PAUSE, Reaction.CAPACITY, Reaction.WITHDRAW}
    outcome = Outcome(Code("Code", reaction, Effect.NO, "remedy"))
    deferrals = own_deferrals(replace(LEASE, deferrals=3), outcome)
    assert deferrals == (3 if reaction in shared else 4)


def test_an_endpoint_in_trouble_costs_no_attempt() -> None:
    """Where everyone's answers are lost, a lost answer says nothing about the job."""
    outcome = Outcome(Code("Code", Reaction.RECONCILE, Effect.MAYBE, "remedy"))
    decision = decide(LEASE, outcome, max_attempts=5, jitter=0.5, endpoint_fails=True)
    assert (decision.state, decision.charges_attempt, decision.maybe_applied) == (
        S.UNKNOWN,
        False,
        True,
    )
