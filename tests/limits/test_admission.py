"""What answers teach about an endpoint, the credentials and halted scopes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import httpx
import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential, CredentialSource
from orchestrator.cloud.error_classification import code_for_exception, code_for_reply
from orchestrator.cloud.error_codes import code_for
from orchestrator.errors import CredentialError
from orchestrator.limits.admission import (
    BUCKET_LOOKUP,
    DESCRIBE,
    EXPORT,
    Admission,
)
from orchestrator.limits.halted_scopes import scope_values_of
from orchestrator.model import ExportOrder, ImageFormat, Lease, Outcome, Reaction, Reply, Scope
from orchestrator.store import Database
from tests.cloud.scripted_server import NOON, FixedClock, FixedCredentials, http_date
from tests.instant_loop import in_no_time
from tests.job_factory import BUCKET, CAP_REACHED, PROFILE, REGION, make_acceptance, make_refusal
from tests.store_and_cloud import CREDENTIAL, make_admission

HOST = "cvm.example"
HERE = {Scope.REGION: REGION}


async def learn_from(
    admission: Admission, outcome: Outcome, *, asked_at: float = 0.0, job_id: int | None = None
) -> None:
    """Record an outcome of ExportImages, and update the warnings."""
    await admission.record_outcome(
        EXPORT,
        HOST,
        outcome,
        scope_values=HERE,
        asked_at=asked_at,
        credential=CREDENTIAL,
        job_id=job_id,
    )
    await admission.update_warnings(EXPORT, HOST, REGION, outcome)


LOST = Outcome(code_for_exception(httpx.ReadError("cut")), "cut")


def after_lost_answers(still: Database, count: int) -> tuple[Admission, list[str]]:
    """Record so many lost answers in a row; return the messages for the user, too."""
    said: list[str] = []
    admission = make_admission(still, notify=said.append)

    async def learn() -> None:
        for _ in range(count):
            await learn_from(admission, LOST)

    in_no_time(learn)
    return admission, said


def test_a_few_lost_answers_are_charged_to_their_jobs(still: Database) -> None:
    """Four in a row do not open the circuit of the endpoint."""
    admission, said = after_lost_answers(still, 4)
    assert not admission.excuses_lost_answer(HOST, 0)
    assert said == []


def test_a_failing_endpoint_excuses_the_jobs(still: Database) -> None:
    """From the fifth lost answer in a row until the next answer, no job is charged."""
    admission, said = after_lost_answers(still, 5)
    assert admission.excuses_lost_answer(HOST, 0)
    assert not admission.excuses_lost_answer("other.example", 0)
    in_no_time(partial(admission.record_response, HOST))
    assert not admission.excuses_lost_answer(HOST, 0)
    assert [HOST in sentence for sentence in said] == [True, True]


def test_an_endpoint_whose_failure_was_not_told_is_not_said_to_answer_again(
    still: Database,
) -> None:
    """If no warning of a failing endpoint was given, its recovery is not reported.

    It may answer again before the warning of its failure is due.
    """
    said: list[str] = []
    admission = make_admission(still, notify=said.append)

    async def learn() -> None:
        for outcome in (*(5 * [LOST]), make_refusal(CAP_REACHED)):
            await admission.record_outcome(
                EXPORT, HOST, outcome, scope_values=HERE, asked_at=0.0, credential=CREDENTIAL
            )
        await admission.update_warnings(EXPORT, HOST, REGION, LOST)

    in_no_time(learn)
    assert not admission.is_endpoint_failing(HOST)
    assert said == []


def test_a_job_is_excused_ten_times_at_most(still: Database) -> None:
    """It may be the cause itself: after ten in a row the next lost answer is charged."""
    admission, _ = after_lost_answers(still, 5)
    assert admission.excuses_lost_answer(HOST, 9)
    assert not admission.excuses_lost_answer(HOST, 10)


def test_replaced_credentials_are_read_when_halts_end(still: Database) -> None:
    """A long run uses replaced credentials once its halts end, without a restart."""
    stored = [CREDENTIAL]

    async def read() -> Credential:
        return stored[0]

    source = CredentialSource(read, ServerClock(SystemClock()), lambda _sentence: None)
    admission = make_admission(still, source)
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
    """Revoked keys end the reading of buckets, even if an export met them first.

    The user is notified of them once.
    """
    said: list[str] = []
    admission = make_admission(still, source, said.append)
    revoked = Outcome(code_for("AuthFailure.SecretIdNotFound"), "no such key")

    async def learn() -> None:
        for action in (EXPORT, BUCKET_LOOKUP):
            await admission.credential()
            await admission.record_outcome(
                action,
                HOST,
                revoked,
                scope_values=HERE,
                asked_at=9.0,
                credential=CREDENTIAL,
            )

    in_no_time(learn)
    assert not admission.may_read_buckets
    (sentence,) = said
    assert sentence.startswith(f"Warning: no more exports are sent for profile {PROFILE}: ")
    assert "Action required: " in sentence


def test_a_failed_description_is_not_warned_of_as_a_failing_endpoint(still: Database) -> None:
    """A lost answer of DescribeImages causes no warning of a failing endpoint.

    This action alone may fail. The next lost answer of ExportImages causes the warning.
    """
    said: list[str] = []
    admission = make_admission(still, notify=said.append)

    async def learn() -> None:
        for _ in range(5):
            await admission.record_outcome(
                EXPORT, HOST, LOST, scope_values=HERE, asked_at=0.0, credential=CREDENTIAL
            )
        await admission.update_warnings(DESCRIBE, HOST, REGION, LOST)
        assert said == []
        await admission.update_warnings(EXPORT, HOST, REGION, LOST)

    in_no_time(learn)
    assert len(said) == 1


NO_SIGNATURE = make_refusal("AuthFailure.SignatureFailure")
NO_ROLE = make_refusal("AuthFailure.CamRoleNameAuthenticateFailed")
EXPORTED = make_acceptance()
ORDER = ExportOrder(REGION, ("img-1",), BUCKET, ImageFormat.RAW, "tag", True, "Writer")
LEASE = Lease(1, 1, "me", PROFILE, ORDER, NOON, NOON, NOON)


async def is_probe_due_after(
    still: Database, outcomes: Sequence[Outcome], action: str = EXPORT
) -> bool:
    """Return whether a probe of a suspected scope is due after these outcomes.

    Record the outcomes one second apart, each for another job with the same order.
    """
    admission = make_admission(still)
    for asked_at, outcome in enumerate(outcomes):
        await anyio.sleep(1)
        await admission.record_outcome(
            action,
            HOST,
            outcome,
            scope_values=scope_values_of(ORDER),
            asked_at=float(asked_at),
            credential=CREDENTIAL,
            job_id=asked_at,
        )
    await anyio.sleep(1)
    return admission.suspected_scopes.is_probe_due


@pytest.mark.parametrize("refusal", [NO_SIGNATURE, NO_ROLE])
def test_what_was_accepted_and_is_refused_is_suspected(still: Database, refusal: Outcome) -> None:
    """A scope that was accepted is suspected from a refusal to the next acceptance.

    Meanwhile one job at a time shows whether the refusal passes.
    """

    async def work() -> list[bool]:
        return [
            await is_probe_due_after(still, outcomes)
            for outcomes in ([EXPORTED, refusal], [EXPORTED, refusal, EXPORTED], [refusal])
        ]

    assert in_no_time(work) == [True, False, False]


def test_a_full_region_shows_that_the_account_is_accepted(still: Database) -> None:
    """It says nothing about the role, which the vendor may check later."""

    async def work() -> list[bool]:
        full = make_refusal(CAP_REACHED)
        return [
            await is_probe_due_after(still, [EXPORTED, refusal, full])
            for refusal in (NO_SIGNATURE, NO_ROLE)
        ]

    assert in_no_time(work) == [False, True]


def test_a_refused_look_up_delays_no_export(still: Database) -> None:
    """Exports find out for themselves whether they are refused too."""
    outcomes = [EXPORTED, NO_SIGNATURE]
    assert not in_no_time(partial(is_probe_due_after, still, outcomes, BUCKET_LOOKUP))


@pytest.mark.parametrize(
    ("code", "scope"),
    [("UnauthorizedOperation", Scope.CREDENTIAL), ("Client.ProxyRefusalError", Scope.ENDPOINT)],
)
def test_what_may_concern_one_image_or_another_endpoint_is_not_suspected(
    still: Database, code: str, scope: Scope
) -> None:
    """Some images may be denied among many that are permitted."""
    refusal = Outcome(replace(code_for(code), reaction=Reaction.HALT, scope=scope), "no")
    assert not in_no_time(partial(is_probe_due_after, still, [EXPORTED, refusal]))


def test_a_probe_that_was_not_sent_is_replaced(still: Database) -> None:
    """Otherwise nothing is sent until its lease has ended."""
    admission = make_admission(still)

    async def work() -> list[bool]:
        admission.suspected_scopes.suspect(Scope.ROLE, "Writer")
        found = []
        for change in (admission.begin_probe, admission.release):
            await anyio.sleep(1)
            change(HOST, LEASE)
            await anyio.sleep(1)
            found.append(admission.suspected_scopes.is_probe_due)
        return found

    assert in_no_time(work) == [False, True]


UNCLEAR = Outcome(code_for("InternalError"), "no idea", http_status=200)
BEGAN = 7
"""A job whose export is found later."""


def admission_after(
    still: Database, *outcomes: Outcome, clock: ServerClock | None = None
) -> tuple[Admission, list[str]]:
    """Record answers of ExportImages; return the messages for the user, too."""
    said: list[str] = []
    admission = make_admission(still, notify=said.append, clock=clock)

    async def learn() -> None:
        for asked_at, outcome in enumerate(outcomes, start=1):
            await anyio.sleep(0.5)
            await learn_from(admission, outcome, asked_at=float(asked_at), job_id=BEGAN)

    in_no_time(learn)
    return admission, said


def test_a_failing_endpoint_is_warned_of_with_its_last_answer(still: Database) -> None:
    """The warning has the code, status and start of the last answer, and a remedy."""
    _, said = admission_after(still, *(5 * [UNCLEAR]))
    (sentence,) = said
    assert f"{HOST} is failing (InternalError, HTTP 200: no idea)" in sentence
    assert "sending one request at a time" in sentence
    assert UNCLEAR.code.remedy in sentence


@pytest.mark.parametrize("status", [200, 302])
def test_a_page_instead_of_an_answer_is_warned_of_once(still: Database, status: int) -> None:
    """The endpoint counts as failing too, but that is the same condition."""
    page = Reply(status, excerpt="<html>Sign in")
    outcome = Outcome(code_for_reply(page), "<html>Sign in", http_status=status)
    admission, said = admission_after(still, *(6 * [outcome]))
    assert admission.is_endpoint_failing(HOST)
    (sentence,) = said
    assert "cannot be used" in sentence
    assert "one request at a time" in sentence


def test_refusals_while_our_exports_run_are_not_warned_of(still: Database) -> None:
    """The loop that reads the store says where exports of ours may be running."""
    said: list[str] = []
    admission = make_admission(still, notify=said.append)

    async def learn() -> None:
        admission.record_exporting([REGION])
        for _ in range(20):
            await learn_from(admission, make_refusal(CAP_REACHED))
        assert said == []
        admission.record_exporting([])
        for _ in range(10):
            await learn_from(admission, make_refusal(CAP_REACHED))

    in_no_time(learn)
    assert len(said) == 1


def test_a_full_region_is_warned_of_where_the_keys_may_not_read_buckets(still: Database) -> None:
    """If the keys may not read buckets, a region that stays full causes a warning.

    Then no bucket shows when exports end, even if it was readable before.
    """
    said: list[str] = []
    admission = make_admission(still, notify=said.append)

    async def learn() -> None:
        admission.record_exporting([REGION])
        admission.may_read_buckets = False
        for _ in range(7):
            await learn_from(admission, make_refusal(CAP_REACHED))
            await anyio.sleep(60)

    in_no_time(learn)
    (sentence,) = said
    assert "nothing shows when they end" in sentence


def test_unclear_answers_delay_the_next_request_by_seconds(still: Database) -> None:
    """The endpoint does answer, so it is not left alone for half a minute."""
    admission = make_admission(still)

    async def waits() -> list[float]:
        found = []
        for _ in range(15):
            before = anyio.current_time()
            await admission.wait_for_turn(EXPORT, HOST)
            found.append(anyio.current_time() - before)
            await learn_from(admission, UNCLEAR, asked_at=before)
        return found

    assert 2.0 < max(in_no_time(waits)) <= 5.5


def test_unclear_answers_do_not_count_where_exports_began(still: Database) -> None:
    """Once such an export was found in the bucket, the next ones are sent as usual."""
    admission, said = admission_after(still, *(5 * [UNCLEAR]))
    in_no_time(partial(admission.record_reconciliation, BEGAN))
    assert not admission.is_endpoint_failing(HOST)

    async def learn() -> None:
        for _ in range(20):
            await learn_from(admission, UNCLEAR)

    in_no_time(learn)
    assert not admission.is_endpoint_failing(HOST)
    assert len([sentence for sentence in said if "is failing" in sentence]) == 1


def test_a_found_export_does_not_excuse_lost_answers(still: Database) -> None:
    """A request without an answer says nothing about unclear answers."""
    admission, _ = admission_after(still, *(5 * [LOST]))
    in_no_time(partial(admission.record_reconciliation, BEGAN))
    assert admission.is_endpoint_failing(HOST)


EXPIRED = Outcome(code_for("AuthFailure.SignatureExpire"), "too old", http_status=200)


def test_a_refused_date_does_not_halt_while_another_is_left(still: Database) -> None:
    """The clock has learned another time, so the next signatures have that one."""
    clock = ServerClock(FixedClock())
    clock.learn(http_date(NOON, timedelta(hours=1)), HOST)
    assert clock.record_refusal(NOON)
    admission, said = admission_after(still, EXPIRED, EXPIRED, EXPIRED, clock=clock)
    assert admission.halts.active == []
    assert said == []


def test_the_halt_names_the_offset_and_its_source(still: Database) -> None:
    """The message names the clock offset and the host whose Date header showed it."""
    clock = ServerClock(FixedClock())
    clock.learn(http_date(NOON, timedelta(hours=1)), HOST)
    assert clock.record_refusal(NOON)
    assert not clock.record_refusal(clock.now())
    _, said = admission_after(still, EXPIRED, EXPIRED, clock=clock)
    (sentence,) = said
    assert f"the Date header of {HOST} is 3600 s ahead of this machine's clock" in sentence
    assert "NTP" in sentence


@pytest.mark.anyio
async def test_requests_of_one_kind_share_a_limiter(sqlite: Database) -> None:
    """All workers of a process share one rate limiter for each action."""
    admission = make_admission(sqlite)
    limiter = await admission.wait_for_turn(EXPORT, HOST)
    assert await admission.wait_for_turn(EXPORT, HOST) is limiter
    assert await admission.wait_for_turn(DESCRIBE, HOST) is not limiter
