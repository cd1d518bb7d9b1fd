"""A reply or an exception becomes an outcome, by table: nothing that can happen has no row."""

from orchestrator.cloud.error_classification import code_for_exception, code_for_reply
from orchestrator.model import NOT_SENT, Code, Effect, Outcome, Reaction, Reply

FULL = Outcome(
    Code(NOT_SENT, Reaction.CAPACITY, Effect.NO, "Nothing to do: it waits for an export to end."),
    message="Not sent: the vendor had just said that too many exports run.",
)
"""Of a request that was claimed before its scope turned out to be full."""

WITHDRAWN = Outcome(
    Code(NOT_SENT, Reaction.WITHDRAW, Effect.NO, "Nothing to do: it is sent when it can be."),
    message="Not sent: meanwhile the run was to end, or something had to be mended first.",
)
"""Of a request that was claimed before nothing more was to be sent."""


def outcome_of_reply(reply: Reply) -> Outcome:
    """What an HTTP answer means."""
    code = code_for_reply(reply)
    return Outcome(
        code=code,
        message=reply.error_message or reply.excerpt or "",
        request_id=reply.request_id,
        http_status=reply.http_status,
        task_id=reply.task_id,
        cos_paths=reply.cos_paths,
    )


def outcome_of_exception(error: Exception) -> Outcome:
    """What it means that no answer came."""
    return Outcome(code=code_for_exception(error), message=str(error) or type(error).__name__)
