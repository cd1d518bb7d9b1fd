"""What answers teach: whose fault a lost one is, and when nothing more can be asked."""

from dataclasses import replace

import httpx
import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.credentials.static import StaticCredentials
from orchestrator.cloud.error_classification import code_for_exception
from orchestrator.cloud.error_codes import code_for
from orchestrator.errors import CredentialError
from orchestrator.limits.admission import EXPORT, LOOK, Admission
from orchestrator.limits.rate_limiter import RateLimiters
from orchestrator.model import Outcome
from orchestrator.store import Database
from tests.cloud.scripted import FixedCredentials
from tests.job_factory import PROFILE
from tests.limits.instant import in_no_time
from tests.store_and_cloud import CREDENTIAL

HOST = "cvm.example"
LOST = Outcome(code_for_exception(httpx.ReadError("cut")), "cut")


def after(still: Database, doubts: int) -> tuple[Admission, list[str]]:
    """What so many lost answers in a row have taught, and what the user has heard."""
    said: list[str] = []
    admission = Admission(
        PROFILE, RateLimiters(still, 0), FixedCredentials(CREDENTIAL), said.append, quota_wait=60
    )

    async def learn() -> None:
        for _ in range(doubts):
            await admission.record_outcome(
                EXPORT, HOST, LOST, scope_values={}, asked_at=0.0, credential=CREDENTIAL
            )

    in_no_time(learn)
    return admission, said


def test_a_few_lost_answers_are_the_jobs_own(still: Database) -> None:
    """Four in a row are counted, each against its job, and nobody is troubled."""
    admission, said = after(still, 4)
    assert not admission.excuses_lost_answer(HOST, 0)
    assert said == []


def test_an_endpoint_in_trouble_excuses_the_jobs(still: Database) -> None:
    """From the fifth in a row until the next answer a lost one costs its job nothing."""
    admission, said = after(still, 5)
    assert admission.excuses_lost_answer(HOST, 0)
    assert not admission.excuses_lost_answer("other.example", 0)
    admission.record_response(HOST)
    assert not admission.excuses_lost_answer(HOST, 0)
    assert [HOST in sentence for sentence in said] == [True, True]


def test_no_job_is_excused_for_ever(still: Database) -> None:
    """It may be what is in trouble itself: after ten in a row the next one counts."""
    admission, _ = after(still, 5)
    assert admission.excuses_lost_answer(HOST, 9)
    assert not admission.excuses_lost_answer(HOST, 10)


def test_mended_keys_are_read_when_stops_are_lifted(still: Database) -> None:
    """Whoever has put other keys where the refused ones stood need not start anew."""
    standing = [CREDENTIAL]
    source = StaticCredentials("a file", lambda: standing[0], SystemClock())
    admission = Admission(
        PROFILE, RateLimiters(still, 0), source, lambda _sentence: None, quota_wait=60
    )
    standing[0] = replace(CREDENTIAL, secret_id="AKIDmended")
    found: list[Credential | None] = []

    async def mend() -> None:
        await admission.clear_halts()
        found.append(await admission.credential())

    in_no_time(mend)
    assert found == standing


class NoKeys(FixedCredentials):
    """A source that has nothing to give any more."""

    async def current(self) -> Credential:
        """Says so."""
        raise CredentialError("the role is gone", "Bind it again.")

    renew = current


@pytest.mark.parametrize(
    "source", [FixedCredentials(CREDENTIAL), NoKeys()], ids=["refused", "gone"]
)
def test_looks_end_even_where_an_export_was_stopped_first(
    still: Database, source: FixedCredentials
) -> None:
    """Keys that an export has found revoked are told once, and the looks with them end too."""
    said: list[str] = []
    admission = Admission(PROFILE, RateLimiters(still, 0), source, said.append, quota_wait=60)
    revoked = Outcome(code_for("AuthFailure.SecretIdNotFound"), "no such key")

    async def learn() -> None:
        for action in (EXPORT, LOOK):
            await admission.credential()
            await admission.record_outcome(
                action, HOST, revoked, scope_values={}, asked_at=9.0, credential=CREDENTIAL
            )

    in_no_time(learn)
    assert not admission.may_read_buckets
    assert len(said) == 1
