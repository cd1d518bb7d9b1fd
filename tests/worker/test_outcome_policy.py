"""What follows from an outcome, as a table: one row for each reaction."""

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.cloud.error_codes import code_for
from orchestrator.job_states import JobState
from orchestrator.model import (
    Code,
    Effect,
    ExportOrder,
    ImageFormat,
    Lease,
    Outcome,
    Reaction,
    Scope,
)
from orchestrator.worker.outcome_policy import (
    MAX_DEFERRALS,
    Decision,
    decide,
    is_maybe_applied,
    own_deferrals,
)
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
    return decide(lease, outcome, jitter=1.0)


@pytest.mark.parametrize(
    ("reaction", "state", "reason", "charges_attempt"),
    [
        (Reaction.ACCEPT, S.ACCEPTED, "exporting", True),
        (Reaction.RECONCILE, S.UNKNOWN, "answer lost", True),
        (Reaction.SLOW, S.QUEUED, "rate", False),
        (Reaction.PAUSE, S.QUEUED, "network", False),
        (Reaction.CAPACITY, S.QUEUED, "quota", False),
        (Reaction.BUSY, S.QUEUED, "image busy", False),
        (Reaction.RESIGN, S.QUEUED, "halted: clock", False),
        (Reaction.REFRESH, S.QUEUED, "halted: clock", False),
        (Reaction.FAIL, S.FAILED, "refused", True),
        (Reaction.SUSPECT_REGION, S.QUEUED, "refusal that may concern the region", False),
        (Reaction.HALT, S.QUEUED, "halted: clock", False),
    ],
)
def test_each_reaction_decides_the_next_state(
    reaction: Reaction, state: JobState, reason: str, charges_attempt: bool
) -> None:
    """State, reason and charge depend on the reaction alone."""
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
    decision = decide(LEASE, outcome, jitter=1.0)
    assert (decision.state, decision.reason) == (S.QUEUED, reason)


def test_every_reaction_has_a_decision() -> None:
    """Every reaction has a decision, and none charges an attempt and queues the job.

    The job has no attempt left, so it could not be sent again.
    """
    for reaction in Reaction:
        decision = decided(replace(LEASE, attempts_charged=ATTEMPTS), reaction)
        assert decision.state in {S.QUEUED, S.ACCEPTED, S.UNKNOWN, S.FAILED}
        assert not (decision.charges_attempt and decision.state is S.QUEUED)


@pytest.mark.parametrize("reaction", sorted(set(Reaction) - {Reaction.ACCEPT, Reaction.RECONCILE}))
@pytest.mark.parametrize("maybe_applied", [False, True])
def test_a_refusal_does_not_clear_maybe_applied(reaction: Reaction, maybe_applied: bool) -> None:
    """A later refusal does not show whether an earlier attempt began an export."""
    lease = replace(LEASE, maybe_applied=maybe_applied)
    assert is_maybe_applied(lease, decided(lease, reaction)) is maybe_applied


def test_a_lost_answer_sets_maybe_applied_and_an_acceptance_clears_it() -> None:
    """No other outcome changes `maybe_applied`."""
    assert is_maybe_applied(LEASE, decided(LEASE, Reaction.RECONCILE))
    lease = replace(LEASE, maybe_applied=True)
    assert not is_maybe_applied(lease, decided(lease, Reaction.ACCEPT))


@pytest.mark.parametrize("reaction", [Reaction.SLOW, Reaction.PAUSE, Reaction.CAPACITY])
def test_shared_waits_have_no_delay_of_their_own(reaction: Reaction) -> None:
    """Jobs that wait for rate, network or capacity have no delay of their own."""
    assert decided(LEASE, reaction).delay == timedelta()


@pytest.mark.parametrize(
    "reaction",
    [Reaction.BUSY, Reaction.SUSPECT_REGION, Reaction.HALT, Reaction.RESIGN, Reaction.REFRESH],
)
def test_the_wait_of_one_job_doubles(reaction: Reaction) -> None:
    """The wait doubles with each failure in a row, up to one minute."""
    waits = [
        decided(replace(LEASE, deferrals=times), reaction).delay.total_seconds()
        for times in (0, 1, 2, 100)
    ]
    assert waits == [1, 2, 4, 60]


def test_jitter_spreads_the_waits() -> None:
    """Two jobs that are refused at the same time are not due at the same time."""
    outcome = Outcome(Code("Code", Reaction.BUSY, Effect.NO, "remedy"))
    early = decide(LEASE, outcome, jitter=0.0)
    late = decide(LEASE, outcome, jitter=1.0)
    assert early.delay < late.delay


def test_an_image_that_is_broken_is_not_waited_for() -> None:
    """An image that failed to be created never becomes exportable."""
    decision = decided(replace(LEASE, image_broken=True), Reaction.BUSY)
    assert (decision.state, decision.reason) == (S.FAILED, "image not exportable")


def test_a_busy_image_is_not_waited_for_longer_than_a_day() -> None:
    """What occupies the image for so long will not end."""
    for deferrals, state in [(MAX_DEFERRALS - 1, S.QUEUED), (MAX_DEFERRALS, S.FAILED)]:
        assert decided(replace(LEASE, deferrals=deferrals), Reaction.BUSY).state is state


@pytest.mark.parametrize("scope", Scope)
def test_a_halt_names_its_scope(scope: Scope) -> None:
    """The job is queued, and its reason names the halted scope."""
    decision = decided(LEASE, Reaction.HALT, scope=scope)
    assert (decision.state, decision.reason) == (S.QUEUED, f"halted: {scope}")


@pytest.mark.parametrize(
    ("name", "before", "deferrals", "state"),
    [
        ("AuthFailure.UnauthorizedOperation", None, 0, S.QUEUED),
        ("AuthFailure.UnauthorizedOperation", "AuthFailure.UnauthorizedOperation", 4, S.QUEUED),
        ("AuthFailure.UnauthorizedOperation", "LimitExceeded", 6, S.QUEUED),
        ("AuthFailure.UnauthorizedOperation", "AuthFailure.UnauthorizedOperation", 5, S.FAILED),
        ("AuthFailure.SignatureFailure", "AuthFailure.SignatureFailure", 9, S.QUEUED),
    ],
)
def test_an_image_that_is_denied_alone_fails_in_the_end(
    name: str, before: str | None, deferrals: int, state: JobState
) -> None:
    """A policy that denies one image fails its job, after six denials in a row."""
    lease = replace(LEASE, last_code=before, deferrals=deferrals)
    assert decide(lease, Outcome(code_for(name)), jitter=0.5).state is state


@pytest.mark.parametrize("name", ["InvalidImageId.NotFound", "ResourceNotFound"])
def test_an_image_that_was_shown_is_asked_for_again(name: str) -> None:
    """Its job fails only if the image is still not found after five deferrals."""
    outcome = Outcome(code_for(name))
    shown = replace(LEASE, images_shown=True)
    for lease, state in (
        (LEASE, S.FAILED),
        (shown, S.QUEUED),
        (replace(shown, deferrals=4), S.QUEUED),
        (replace(shown, deferrals=5), S.FAILED),
    ):
        assert decide(lease, outcome, jitter=0.5).state is state
    windows = Outcome(code_for("UnsupportedOperation.WindowsImageExportUnsupported"))
    assert decide(shown, windows, jitter=0.5).state is S.FAILED


@pytest.mark.parametrize("reaction", Reaction)
def test_shared_waits_are_not_counted_as_deferrals(reaction: Reaction) -> None:
    """A job that waits for a shared limit was neither denied nor found busy."""
    shared = {Reaction.SLOW, Reaction.PAUSE, Reaction.CAPACITY, Reaction.WITHDRAW}
    outcome = Outcome(Code("Code", reaction, Effect.NO, "remedy"))
    deferrals = own_deferrals(replace(LEASE, deferrals=3), outcome)
    assert deferrals == (3 if reaction in shared else 4)


def test_an_answer_that_came_is_not_called_lost() -> None:
    """A response with an undocumented code, or one that cannot be read, is unclear."""
    answered = Outcome(Code("Code", Reaction.RECONCILE, Effect.MAYBE, "remedy"), http_status=200)
    assert decide(LEASE, answered, jitter=1.0).reason == "answer unclear"


def test_a_failing_endpoint_charges_no_attempt() -> None:
    """If all answers are lost, a lost answer proves nothing about its job."""
    outcome = Outcome(Code("Code", Reaction.RECONCILE, Effect.MAYBE, "remedy"))
    decision = decide(LEASE, outcome, jitter=0.5, endpoint_fails=True)
    assert (decision.state, decision.charges_attempt) == (S.UNKNOWN, False)
