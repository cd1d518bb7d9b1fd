"""What answers teach about an endpoint, the credentials and halted scopes."""

from dataclasses import replace

import httpx
import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential, CredentialSource
from orchestrator.cloud.error_classification import code_for_exception
from orchestrator.cloud.error_codes import code_for
from orchestrator.errors import CredentialError
from orchestrator.limits.admission import BUCKET_LOOKUP, EXPORT, Admission
from orchestrator.model import Outcome
from orchestrator.store import Database
from tests.cloud.scripted_server import FixedCredentials
from tests.instant_loop import in_no_time
from tests.job_factory import PROFILE
from tests.store_and_cloud import CREDENTIAL

HOST = "cvm.example"
LOST = Outcome(code_for_exception(httpx.ReadError("cut")), "cut")


def after_lost_answers(still: Database, count: int) -> tuple[Admission, list[str]]:
    """Record so many lost answers in a row; return the messages for the user, too."""
    said: list[str] = []
    admission = Admission(
        PROFILE, still, FixedCredentials(CREDENTIAL), said.append, rate=0, quota_wait=60
    )

    async def learn() -> None:
        for _ in range(count):
            await admission.record_outcome(
                EXPORT, HOST, LOST, scope_values={}, asked_at=0.0, credential=CREDENTIAL
            )

    in_no_time(learn)
    return admission, said


def test_a_few_lost_answers_are_charged_to_their_jobs(still: Database) -> None:
    """Four in a row do not open the circuit of the endpoint."""
    admission, said = after_lost_answers(still, 4)
    assert not admission.excuses_lost_answer(HOST, 0)
    assert said == []


def test_a_failing_endpoint_excuses_the_jobs(still: Database) -> None:
    """From the fifth lost answer in a row until the next answer, none is charged to its job."""
    admission, said = after_lost_answers(still, 5)
    assert admission.excuses_lost_answer(HOST, 0)
    assert not admission.excuses_lost_answer("other.example", 0)
    admission.record_response(HOST)
    assert not admission.excuses_lost_answer(HOST, 0)
    assert [HOST in sentence for sentence in said] == [True, True]


def test_a_job_is_excused_ten_times_at_most(still: Database) -> None:
    """It may be the cause itself: after ten in a row the next lost answer is charged."""
    admission, _ = after_lost_answers(still, 5)
    assert admission.excuses_lost_answer(HOST, 9)
    assert not admission.excuses_lost_answer(HOST, 10)


def test_replaced_credentials_are_read_when_halts_end(still: Database) -> None:
    """A run that goes on for ever need not be restarted after new keys were put in place."""
    stored = [CREDENTIAL]

    async def read() -> Credential:
        return stored[0]

    source = CredentialSource(read, ServerClock(SystemClock()), lambda _sentence: None)
    admission = Admission(PROFILE, still, source, lambda _sentence: None, rate=0, quota_wait=60)
    found: list[Credential | None] = []

    async def clear() -> None:
        await source.current()
        stored[0] = replace(CREDENTIAL, secret_id="AKIDnew")
        await admission.clear_halts()
        found.append(await admission.credential())

    in_no_time(clear)
    assert found == stored


class NoKeys(FixedCredentials):
    """A source without credentials."""

    async def current(self) -> Credential:
        """Raise the error of a source without credentials."""
        raise CredentialError("the role is gone", "Bind it again.")

    renew = current


@pytest.mark.parametrize(
    "source", [FixedCredentials(CREDENTIAL), NoKeys()], ids=["refused", "gone"]
)
def test_reading_buckets_ends_though_an_export_was_halted_first(
    still: Database, source: FixedCredentials
) -> None:
    """Revoked keys that an export met first are reported once, and end the reading of buckets."""
    said: list[str] = []
    admission = Admission(PROFILE, still, source, said.append, rate=0, quota_wait=60)
    revoked = Outcome(code_for("AuthFailure.SecretIdNotFound"), "no such key")

    async def learn() -> None:
        for action in (EXPORT, BUCKET_LOOKUP):
            await admission.credential()
            await admission.record_outcome(
                action, HOST, revoked, scope_values={}, asked_at=9.0, credential=CREDENTIAL
            )

    in_no_time(learn)
    assert not admission.may_read_buckets
    (sentence,) = said
    assert sentence.startswith(f"Warning: no more exports are sent for profile {PROFILE}: ")
    assert "Action required: " in sentence
