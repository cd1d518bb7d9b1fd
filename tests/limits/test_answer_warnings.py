"""Warnings about answers of ExportImages that make no progress."""

import pytest

from orchestrator.cloud.error_classification import code_for_reply
from orchestrator.limits.answer_warnings import AnswerWarnings
from orchestrator.model import Outcome, Reply
from orchestrator.store import Database
from tests.job_factory import PROFILE, REGION, make_acceptance, make_refusal
from tests.store_and_cloud import UnstoredWarnings

pytestmark = pytest.mark.anyio

HOST = "cvm.example"
REDIRECT = Reply(302, excerpt="redirect to https://login.example/")
BUSY = make_refusal("ResourceInUse", "The image is in use.")


class Run:
    """The answers of one run, and the warnings that a person reads."""

    def __init__(self, database: Database) -> None:
        self.said: list[str] = []
        self.answers = AnswerWarnings(UnstoredWarnings(database, PROFILE, self.said.append))

    async def answer(self, outcome: Outcome, times: int = 1, region: str = REGION) -> None:
        """Record an answer several times."""
        for _ in range(times):
            await self.answers.record(HOST, region, outcome)


@pytest.fixture
def run(still: Database) -> Run:
    """Return a run that has got no answer yet."""
    return Run(still)


async def test_ten_answers_without_an_acceptance_are_told(run: Run) -> None:
    """The warning names the region, the last code and its message, and what to do."""
    await run.answer(BUSY, 9)
    assert run.said == []
    await run.answer(BUSY, 5)
    (sentence,) = run.said
    assert sentence.startswith(f"Warning: {REGION}: ExportImages has accepted nothing")
    assert "ResourceInUse, HTTP 200: The image is in use." in sentence
    assert BUSY.code.remedy in sentence


async def test_refusals_after_an_acceptance_are_usual(run: Run) -> None:
    """A region that accepts exports works, however many refusals follow."""
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


@pytest.mark.parametrize(
    "reply", [REDIRECT, Reply(200, excerpt="<html>Sign in"), Reply(200, request_id="r")]
)
async def test_a_repeated_unusable_answer_is_told(run: Run, reply: Reply) -> None:
    """The second redirect, page or answer without a TaskId in a row is told with its beginning."""
    outcome = Outcome(code_for_reply(reply), reply.excerpt or "", http_status=reply.http_status)
    await run.answer(outcome)
    await run.answer(BUSY)
    await run.answer(outcome)
    assert run.said == []
    await run.answer(outcome)
    (sentence,) = run.said
    assert f"{HOST} answers ExportImages in a way that cannot be used" in sentence
    assert f"HTTP {reply.http_status}" in sentence
    assert outcome.message in sentence
    assert outcome.code.remedy in sentence


async def test_requests_without_an_answer_are_not_counted(run: Run) -> None:
    """Time-outs and failed connections are told by the circuit breaker."""
    await run.answer(Outcome(code_for_reply(REDIRECT), "no answer"), 20)
    assert run.said == []
