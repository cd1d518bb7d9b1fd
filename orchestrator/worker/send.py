"""Sends one attempt: one lease, one HTTP request, one outcome."""

from collections.abc import Callable

from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.error_classification import code_for_exception, code_for_reply
from orchestrator.limits.rate_limiter import Permit
from orchestrator.model import NOT_SENT, Code, Effect, Lease, Outcome, Reaction, Reply


async def submit(
    cvm: CvmClient,
    lease: Lease,
    credential: Credential,
    permit: Permit,
    instead: Callable[[], Outcome | None] = lambda: None,
) -> Outcome:
    """Sends the request of this lease at its slot's time; never twice, never raises for it.

    Whatever goes wrong is an outcome: after the first byte may have left, an exception that
    escaped would leave the job without a record of what is known.

    Args:
        instead: asked when its time has come: what has come of it already, if it has.
    """
    await permit.wait()
    if (known := instead()) is not None:
        return known
    try:
        reply = await cvm.export_images(
            lease.order, signed_at=lease.signed_at, credential=credential
        )
    except Exception as error:  # noqa: BLE001 - the table has a row for anything
        return outcome_of_exception(error)
    return outcome_of_reply(reply)


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
