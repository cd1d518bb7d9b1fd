"""Send the request of one attempt: one lease, one HTTP request, one outcome."""

from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.error_classification import code_for_exception, code_for_reply
from orchestrator.model import NOT_SENT, Code, Effect, Lease, Outcome, Reaction, Reply


async def submit(cvm: CvmClient, lease: Lease, credential: Credential) -> Outcome:
    """Send the request of a lease once; never raise because of it.

    Every failure becomes an outcome. If an exception escaped after the first byte may have left,
    nothing would be recorded about the attempt.
    """
    try:
        reply = await cvm.export_images(
            lease.order, signed_at=lease.signed_at, credential=credential
        )
    except Exception as error:  # noqa: BLE001 - the table has a row for anything
        return outcome_of_exception(error)
    return outcome_of_reply(reply)


NOT_SENT_AT_CAPACITY = Outcome(
    Code(NOT_SENT, Reaction.CAPACITY, Effect.NO, "Nothing to do: it waits for an export to end."),
    message="Not sent: the vendor has just refused another request because too many exports run.",
)
"""Outcome of an attempt that was claimed just before its region turned out to be at capacity."""


NOT_SENT_FOR_NOW = Outcome(
    Code(
        NOT_SENT,
        Reaction.WITHDRAW,
        Effect.NO,
        "Run again; if `orchestrator status` warns of a cause, repair it first.",
    ),
    message="Not sent: the run was ending, or no more was sent for its role, bucket or keys.",
)
"""Outcome of an attempt that was claimed just before a shutdown or a halt."""


def outcome_of_reply(reply: Reply) -> Outcome:
    """Return the outcome of an HTTP response."""
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
    """Return the outcome of a request that got no response."""
    return Outcome(code=code_for_exception(error), message=str(error) or type(error).__name__)
