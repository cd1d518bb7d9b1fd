"""Check that a profile's keys belong to the same cloud account as in earlier runs."""

import logging
from collections.abc import Callable

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import CredentialSource
from orchestrator.cloud.http_client import ActionRequiredError, ProxyHandshakeError
from orchestrator.cloud.sts import caller_account
from orchestrator.errors import CredentialError
from orchestrator.settings import Settings
from orchestrator.store import Database, insert_or_ignore
from orchestrator.store.tables import accounts

_log = logging.getLogger("orchestrator")

_TIMEOUT = 5.0
"""Seconds to wait for STS; a run can do without its answer."""


async def check_account(
    database: Database,
    settings: Settings,
    credentials: CredentialSource,
    clock: ServerClock,
    notify: Callable[[str], None],
) -> None:
    """Save the account of the profile at its first run, and compare it in later runs.

    Rate and concurrency limits are counted per account, and a job belongs to one account. The check
    is skipped if STS does not answer: a run must not depend on one more service. That would be so
    in each run if a proxy refuses STS or speaks no TLS, or if the certificate of STS is not
    trusted, so a person must know.

    Args:
        clock: that of STS.
        notify: takes a sentence for the user if the check needs an operator to act.

    Raises:
        CredentialError: in this store the profile belongs to another account.
    """
    profile, credential = settings.profile, await credentials.current()
    try:
        account = await caller_account(
            credential,
            endpoint=settings.sts_endpoint,
            clock=clock,
            seconds=_TIMEOUT,
        )
    except CredentialError as error:
        if isinstance(error.__cause__, ActionRequiredError | ProxyHandshakeError):
            notify(
                f"Note: the account of profile {profile!r} was not checked: {error.message} "
                f"{error.remedy}"
            )
        else:
            _log.debug("Could not look up the account of the credentials: %s", error.message)
        return
    async with database.write() as connection:
        row = {
            "profile": profile,
            "account_id": account,
            "seen_at": await database.now(connection),
        }
        await connection.execute(insert_or_ignore(connection, accounts).values(row))
        query = accounts.select().where(accounts.c.profile == profile)
        known: str = (await connection.execute(query)).one().account_id
    if known != account:
        raise CredentialError(
            f"The keys of profile {profile!r} come from {credentials.origin} and belong to "
            f"account {account}; in this store the profile belongs to account {known}. Nothing "
            "was sent.",
            "Name the profile of this account with --profile, or use the keys of account "
            f"{known}; another account needs another profile or another store.",
        )
