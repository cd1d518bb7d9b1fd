"""Every reply, or the lack of one, becomes an outcome that has all of its values."""

import httpx
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cloud.error_codes import CODES
from orchestrator.model import Effect, Reaction, Reply
from orchestrator.worker.send import outcome_of_exception, outcome_of_reply

PATHS = ("/tag_img-00000001_system_snap-1.raw",)

replies = st.builds(
    Reply,
    http_status=st.sampled_from([200, 302, 400, 403, 429, 500, 502, 504]),
    request_id=st.none() | st.text(max_size=5),
    task_id=st.none() | st.integers(0, 2**64 - 1),
    cos_paths=st.sampled_from([(), PATHS]),
    error_code=st.none() | st.sampled_from(sorted(CODES)) | st.text(min_size=1, max_size=20),
    error_message=st.none() | st.text(max_size=20),
    excerpt=st.none() | st.text(max_size=20),
)


def test_an_acceptance_has_all_values_of_the_reply() -> None:
    """TaskId, CosPaths, RequestId and status are copied unchanged."""
    reply = Reply(200, "r-1", task_id=2**64 - 1, cos_paths=PATHS)
    outcome = outcome_of_reply(reply)
    assert outcome.code.reaction is Reaction.ACCEPT
    assert outcome.task_id == 2**64 - 1
    assert outcome.cos_paths == PATHS
    assert (outcome.request_id, outcome.http_status) == ("r-1", 200)


def test_a_refusal_has_the_vendors_message() -> None:
    """A refusal has the vendor's code, message and RequestId, and our remedy."""
    reply = Reply(200, "r-2", error_code="InvalidImageId.NotFound", error_message="no such image")
    outcome = outcome_of_reply(reply)
    assert (outcome.code.name, outcome.message) == ("InvalidImageId.NotFound", "no such image")
    assert outcome.request_id == "r-2"
    assert outcome.code.remedy == CODES["InvalidImageId.NotFound"].remedy


def test_a_gateways_page_is_quoted() -> None:
    """An answer not from the API is stored as an excerpt, and its effect is unknown."""
    outcome = outcome_of_reply(Reply(502, excerpt="<html>Bad Gateway"))
    assert outcome.message == "<html>Bad Gateway"
    assert outcome.code.effect is Effect.MAYBE


def test_a_task_id_without_paths_is_stored() -> None:
    """It is not an acceptance, but its TaskId is stored."""
    outcome = outcome_of_reply(Reply(200, task_id=7))
    assert outcome.code.reaction is Reaction.RECONCILE
    assert outcome.task_id == 7


def test_an_exception_without_a_message_is_named_by_its_class() -> None:
    """If an exception has no message, the name of its class is used."""
    assert outcome_of_exception(httpx.ReadError("")).message == "ReadError"
    assert outcome_of_exception(httpx.ReadError("cut off")).message == "cut off"


@given(replies)
def test_every_reply_has_an_outcome(reply: Reply) -> None:
    """Every reply has a reaction, and only a complete acceptance is accepted."""
    outcome = outcome_of_reply(reply)
    whole = (
        reply.http_status == 200
        and reply.error_code is None
        and reply.excerpt is None
        and reply.task_id is not None
        and bool(reply.cos_paths)
    )
    assert (outcome.code.reaction is Reaction.ACCEPT) == whole
    assert (outcome.code.effect is Effect.YES) == whole
    assert outcome.code.remedy
    assert outcome.task_id == reply.task_id
