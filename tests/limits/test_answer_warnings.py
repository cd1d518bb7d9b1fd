"""Warnings about answers of ExportImages that make no progress."""

from dataclasses import replace

import anyio
import pytest

from orchestrator.cloud.error_classification import code_for_reply
from orchestrator.limits import answer_warnings
from orchestrator.limits.answer_warnings import AnswerWarnings
from orchestrator.model import Outcome, Reaction, Reply
from orchestrator.store import Database
from tests.instant_loop import in_no_time
from tests.job_factory import CAP_REACHED, PROFILE, REGION, make_acceptance, make_refusal
from tests.store_and_cloud import UnstoredWarnings

pytestmark = pytest.mark.anyio

HOST = "cvm.example"
REDIRECT = Reply(302, excerpt="redirect to https://login.example/")
BUSY = make_refusal("ResourceInUse", "The image is in use.")
FULL = make_refusal(CAP_REACHED, "Too many exports.")
SUSPECT = replace(BUSY, code=replace(BUSY.code, reaction=Reaction.SUSPECT_REGION))


class Run:
    """The answers of one run, and the warnings that a person reads."""

    def __init__(self, database: Database) -> None:
        self.said: list[str] = []
        self.answers = AnswerWarnings(UnstoredWarnings(database, PROFILE, self.said.append))

    async def answer(
        self,
        outcome: Outcome,
        times: int = 1,
        region: str = REGION,
        *,
        every: float = 0.0,
        are_ends_visible: bool = True,
    ) -> None:
        """Record an answer several times; before each, wait some seconds."""
        for _ in range(times):
            await anyio.sleep(every)
            await self.answers.record(HOST, region, outcome, are_ends_visible=are_ends_visible)


@pytest.fixture
def run(still: Database) -> Run:
    """Return a run that has got no answer yet."""
    return Run(still)


async def test_ten_answers_without_an_acceptance_are_warned_of(run: Run) -> None:
    """The warning names the region, the last code and its message, and what to do."""
    await run.answer(BUSY, 9)
    assert run.said == []
    await run.answer(BUSY, 5)
    (sentence,) = run.said
    assert sentence.startswith(f"Warning: {REGION}: ExportImages has accepted nothing")
    assert "ResourceInUse, HTTP 200: The image is in use." in sentence
    assert BUSY.code.remedy in sentence


async def test_a_few_seconds_of_refusals_after_an_acceptance_are_usual(run: Run) -> None:
    """A region that accepts exports works, however many refusals follow at once."""
    await run.answer(make_acceptance())
    await run.answer(BUSY, 30)
    await run.answer(BUSY, 9, region="ap-tokyo")
    assert run.said == []


async def test_the_warning_ends_with_the_first_acceptance(run: Run) -> None:
    """Afterwards the same region is not warned of again."""
    await run.answer(BUSY, 10)
    await run.answer(make_acceptance())
    await run.answer(BUSY, 10)
    assert len(run.said) == 1


@pytest.mark.parametrize("refusal", [BUSY, FULL])
def test_minutes_of_refusals_after_an_acceptance_are_warned_of(run: Run, refusal: Outcome) -> None:
    """The warning says for how long; it ends with an acceptance, and may begin again."""

    async def work() -> None:
        for warnings in (1, 2):
            await run.answer(make_acceptance())
            run.answers.record_exporting([])
            await run.answer(refusal, 10, every=33)
            assert len(run.said) == warnings - 1
            await run.answer(refusal, 5, every=33)
            assert len(run.said) == warnings

    in_no_time(work)
    for sentence in run.said:
        assert sentence.startswith(
            f"Warning: {REGION}: ExportImages has accepted nothing for 6 min"
        )
        assert refusal.message in sentence
    if refusal is FULL:
        assert "check in the console which others of the account are" in run.said[0]
    else:
        assert BUSY.code.remedy in run.said[0]


def test_time_without_answers_is_not_counted(run: Run) -> None:
    """After hours without requests, ten refusals within seconds cause no warning."""

    async def work() -> None:
        await run.answer(make_acceptance())
        await anyio.sleep(7200)
        await run.answer(BUSY, 10, every=1)

    in_no_time(work)
    assert run.said == []


@pytest.mark.parametrize("accepted", [True, False])
def test_a_region_full_of_our_exports_is_not_warned_of(run: Run, accepted: bool) -> None:
    """Jobs that wait for our own exports are usual, also for those of an earlier run."""

    async def work() -> None:
        if accepted:
            await run.answer(make_acceptance())  # its export is known before the store is read
        else:
            run.answers.record_exporting([REGION])
        await run.answer(FULL, 59, every=60)
        assert run.said == []
        run.answers.record_exporting(["ap-tokyo"])
        await run.answer(FULL, 20, every=60)

    in_no_time(work)
    assert len(run.said) == 1


def test_a_region_full_of_our_exports_for_longer_than_exports_take_is_warned_of(run: Run) -> None:
    """The user is warned if a region stays full for longer than exports usually take.

    Its exports may never end, or their answers may be unreadable.
    """

    async def work() -> None:
        run.answers.record_exporting([REGION])
        await run.answer(FULL, 75, every=60)

    in_no_time(work)
    (sentence,) = run.said
    assert "whether the exports of this store still run there" in sentence


def test_a_full_region_is_warned_of_after_minutes_where_nothing_shows_an_end(run: Run) -> None:
    """If no end is visible, a region that is full for five minutes causes a warning.

    Verification is off, or the bucket is unreadable. An acceptance ends the warning.
    """

    async def work() -> None:
        for warnings in (1, 2):
            await run.answer(make_acceptance())
            await run.answer(FULL, 5, every=60, are_ends_visible=False)
            assert len(run.said) == warnings - 1
            await run.answer(FULL, 5, every=60, are_ends_visible=False)
            assert len(run.said) == warnings

    in_no_time(work)
    assert run.said[0].startswith(f"Warning: {REGION}: full for 5 min.")
    assert "whether the exports of this store still run there" in run.said[0]


async def test_that_warning_ends_when_an_end_can_be_seen(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the full region is usual again; the user is warned anew if that ends."""
    monkeypatch.setattr(answer_warnings, "_LONG", 0.0)
    await run.answer(make_acceptance())
    for are_ends_visible, warnings in ((False, 1), (True, 1), (False, 2)):
        await run.answer(FULL, are_ends_visible=are_ends_visible)
        assert len(run.said) == warnings


def test_refusals_that_began_while_our_exports_ran_are_counted_anew(run: Run) -> None:
    """Refusals of single jobs cause no warning while our own exports fill the region."""

    async def work() -> None:
        run.answers.record_exporting([REGION])
        for _ in range(10):
            await run.answer(BUSY, 5, every=60)
            await run.answer(FULL, every=60)

    in_no_time(work)
    assert run.said == []


async def test_what_another_warning_reports_is_not_counted(run: Run) -> None:
    """Unclear answers and refusals that may concern the region are not counted.

    They have warnings of their own.
    """
    await run.answer(SUSPECT, 20)
    unclear = make_refusal("InternalError")
    await run.answer(unclear, 20)
    assert run.said == []


@pytest.mark.parametrize(
    "reply", [REDIRECT, Reply(200, excerpt="<html>Sign in"), Reply(200, request_id="r")]
)
async def test_a_repeated_unusable_answer_is_warned_of(run: Run, reply: Reply) -> None:
    """The second redirect, page or answer without a TaskId is quoted in the warning.

    A refusal in between does not show that acceptances can be read.
    """
    outcome = Outcome(code_for_reply(reply), reply.excerpt or "", http_status=reply.http_status)
    await run.answer(outcome)
    await run.answer(make_acceptance())
    await run.answer(outcome)
    assert run.said == []
    await run.answer(BUSY)
    await run.answer(outcome)
    (sentence,) = run.said
    assert f"{HOST} answers ExportImages in a way that cannot be used" in sentence
    assert f"HTTP {reply.http_status}" in sentence
    assert outcome.message in sentence
    assert outcome.code.remedy in sentence


async def test_requests_without_an_answer_are_not_counted(run: Run) -> None:
    """Time-outs and failed connections are reported by the circuit breaker."""
    await run.answer(Outcome(code_for_reply(REDIRECT), "no answer"), 20)
    assert run.said == []
