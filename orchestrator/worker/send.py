"""Sends one attempt: one lease, one HTTP request, one outcome."""

from collections.abc import Callable

from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import CvmClient
from orchestrator.limits.rate_limiter import Permit
from orchestrator.model import Lease, Outcome
from orchestrator.worker.outcome import outcome_of_exception, outcome_of_reply


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
