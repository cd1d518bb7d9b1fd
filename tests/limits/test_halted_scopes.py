"""When a refusal halts a scope, and what a halt blocks."""

import anyio
import pytest

from orchestrator.cloud.error_codes import code_for
from orchestrator.limits.admission import BUCKET_LOOKUP, EXPORT
from orchestrator.limits.halted_scopes import HaltedScopes, describe_halt
from orchestrator.model import Halt, Scope
from tests.instant_loop import in_no_time

BUCKET_GONE = "InvalidParameterValue.BucketNotFound"
CLOCK = "AuthFailure.SignatureExpire"
TOKEN = "AuthFailure.TokenFailure"
DENIED = "AuthFailure.UnauthorizedOperation"
SIGNATURE = "AuthFailure.SignatureFailure"
ACCEPTED = {Scope.CREDENTIAL: "x", Scope.CLOCK: "x", Scope.BUCKET: "x"}


def halt_for(name: str, value: str = "x", message: str = "no") -> Halt:
    code = code_for(name)
    assert code.scope is not None
    return Halt(code.scope, value, name, message, code.remedy)


def refuse(
    halts: HaltedScopes,
    name: str,
    *,
    claimed: float,
    answered: float,
    job: int | None = 1,
    action: str = EXPORT,
    **fields: str,
) -> bool:
    """Record a refusal; return whether it halts its scope.

    Args:
        claimed: time of the claim, in seconds on the event loop's clock.
        answered: time of the refusal, on the same clock.
    """

    async def work() -> bool:
        await anyio.sleep_until(answered)
        return halts.record_refusal(
            halt_for(name, **fields), code_for(name), action=action, job_id=job, asked_at=claimed
        )

    return in_no_time(work)


def test_a_plain_refusal_halts_its_scope_at_once() -> None:
    """A missing bucket is missing for the next request too."""
    halts = HaltedScopes()
    assert refuse(halts, BUCKET_GONE, claimed=0, answered=1)
    assert halts.active == [halt_for(BUCKET_GONE)]


@pytest.mark.parametrize("name", [CLOCK, TOKEN, DENIED])
def test_what_may_have_been_corrected_halts_the_second_time(name: str) -> None:
    """A refused clock or token, or a denied image, halts only at a second refusal.

    The second request must be claimed after the first refusal.
    """
    halts = HaltedScopes()
    assert not refuse(halts, name, claimed=0, answered=1)
    assert not refuse(halts, name, claimed=0.5, answered=2)
    assert halts.active == []
    assert refuse(halts, name, claimed=1.5, answered=3, job=2)
    assert [held.code for held in halts.active] == [name]


def test_one_job_denied_again_and_again_halts_no_scope() -> None:
    """A policy against a single image is no reason to halt the account."""
    halts = HaltedScopes()
    for second in range(5):
        assert not refuse(halts, DENIED, claimed=2 * second, answered=2 * second + 1, job=7)
    assert refuse(halts, DENIED, claimed=20, answered=21, job=8)


def test_a_cleared_scope_may_be_halted_again() -> None:
    """After clearing, everything is tried again, and the same cause halts again."""
    halts = HaltedScopes()
    assert refuse(halts, BUCKET_GONE, claimed=0, answered=1)
    halts.clear()
    assert halts.active == []
    assert refuse(halts, BUCKET_GONE, claimed=2, answered=3)


def test_an_acceptance_resets_earlier_refusals() -> None:
    """The next refusal is a first one again."""
    halts = HaltedScopes()
    assert not refuse(halts, CLOCK, claimed=0, answered=1)
    halts.record_acceptance(EXPORT, ACCEPTED)
    assert not refuse(halts, CLOCK, claimed=2, answered=3)
    assert refuse(halts, CLOCK, claimed=8.5, answered=9, job=2)


@pytest.mark.parametrize("name", [SIGNATURE, BUCKET_GONE, CLOCK, DENIED])
def test_what_was_accepted_is_halted_by_another_job_some_seconds_later(name: str) -> None:
    """A refusal of what worked before may pass within seconds, or concern one job."""
    halts = HaltedScopes()
    halts.record_acceptance(EXPORT, ACCEPTED)
    assert not refuse(halts, name, claimed=0, answered=1)
    assert not refuse(halts, name, claimed=5.5, answered=6, job=2)
    assert not refuse(halts, name, claimed=6.5, answered=7)
    assert refuse(halts, name, claimed=6.5, answered=7, job=2)


def test_passing_refusals_between_acceptances_halt_nothing() -> None:
    """Each acceptance in the scope makes the next refusal a first one."""
    halts = HaltedScopes()
    for second in range(0, 100, 10):
        halts.record_acceptance(EXPORT, ACCEPTED)
        assert not refuse(halts, SIGNATURE, claimed=second, answered=second + 1, job=second)


def test_the_last_job_of_a_run_halts_what_was_accepted() -> None:
    """The last job of a run halts an accepted scope after 30 seconds of refusals."""
    halts = HaltedScopes()
    halts.record_acceptance(EXPORT, ACCEPTED)
    for second in (0, 10, 30):
        assert not refuse(halts, SIGNATURE, claimed=second, answered=second + 1)
    assert refuse(halts, SIGNATURE, claimed=32, answered=33)


def test_an_accepted_export_says_nothing_about_look_ups() -> None:
    """Only the action that was refused can show that its refusal has passed."""
    halts = HaltedScopes()
    halts.record_acceptance(EXPORT, ACCEPTED)
    assert not refuse(halts, SIGNATURE, claimed=0, answered=1, job=None, action=BUCKET_LOOKUP)
    halts.record_acceptance(EXPORT, ACCEPTED)
    assert refuse(halts, SIGNATURE, claimed=7, answered=8, job=None, action=BUCKET_LOOKUP)


def test_an_accepted_bucket_says_nothing_about_another() -> None:
    """A scope in which nothing was accepted is halted at once."""
    halts = HaltedScopes()
    halts.record_acceptance(EXPORT, ACCEPTED)
    assert refuse(halts, BUCKET_GONE, claimed=0, answered=1, value="y")


def test_refusals_with_different_codes_are_counted_apart() -> None:
    """A wrong clock says nothing about the token."""
    halts = HaltedScopes()
    assert not refuse(halts, CLOCK, claimed=0, answered=1)
    assert not refuse(halts, TOKEN, claimed=2, answered=3)


def test_a_halted_scope_is_reported_once() -> None:
    """Even if the vendor words the next refusal differently."""
    halts = HaltedScopes()
    assert refuse(halts, BUCKET_GONE, claimed=0, answered=1, message="request 1: no such bucket")
    assert not refuse(
        halts, BUCKET_GONE, claimed=0, answered=2, message="request 2: no such bucket"
    )
    assert refuse(halts, BUCKET_GONE, claimed=0, answered=3, value="another")
    assert len(halts.active) == 2


@pytest.mark.parametrize(
    ("scope", "value", "blocks"),
    [
        (Scope.CREDENTIAL, "default", True),
        (Scope.ACCOUNT, "default", True),
        (Scope.CLOCK, "default", True),
        (Scope.ENDPOINT, "cvm.example", True),
        (Scope.ENDPOINT, "other.example", False),
        (Scope.REGION, "ap-tokyo", False),
        (Scope.BUCKET, "ap-tokyo/b", False),
        (Scope.ROLE, "Writer", False),
    ],
)
def test_some_halts_block_a_whole_endpoint(scope: Scope, value: str, blocks: bool) -> None:
    """A halt of the credentials, the account or the clock blocks every endpoint.

    Every other halt blocks only its own scope.
    """
    halts = HaltedScopes()
    assert not halts.blocks_endpoint("cvm.example")
    halts.active.append(Halt(scope, value, "Code", "message", "remedy"))
    assert halts.blocks_endpoint("cvm.example") is blocks


@pytest.mark.parametrize(
    ("scope", "value", "code", "message", "sentence"),
    [
        (
            Scope.ENDPOINT,
            "cvm.example",
            "Client.SSLCertVerificationError",
            "cvm.example: the certificate is not trusted: unknown",
            "endpoint cvm.example: the certificate is not trusted: unknown. Act.",
        ),
        (
            Scope.BUCKET,
            "r/b",
            "Client.ProxyRefusalError",
            "b.r.cos through the proxy p:1 (HTTPS_PROXY): 403",
            "bucket r/b: b.r.cos through the proxy p:1 (HTTPS_PROXY): 403. Act.",
        ),
        (Scope.CREDENTIAL, "p", "Client.NoCredentials", "Gone.", "profile p: Gone. Act."),
        (Scope.CREDENTIAL, "p", "AuthFailure", "No.", "profile p: AuthFailure (No.). Act."),
        (Scope.ROLE, "", "AuthFailure", "", "role (the default one): AuthFailure. Act."),
    ],
)
def test_halt_is_described_in_words(
    scope: Scope, value: str, code: str, message: str, sentence: str
) -> None:
    """The text of a halt has the vendor's code, but not a code of this program.

    Users search for the vendor's code; our own codes are for programs.
    """
    assert describe_halt(Halt(scope, value, code, message, "Act.")) == sentence
