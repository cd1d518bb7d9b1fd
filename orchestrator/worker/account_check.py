"""Check that a profile's keys belong to the same cloud account as in earlier runs."""

from orchestrator.errors import CredentialError
from orchestrator.store import Database, insert_or_ignore
from orchestrator.store.tables import accounts


async def check_account(database: Database, profile: str, account_id: str) -> None:
    """Save the account of a profile at its first run, and compare it in later runs.

    Rate and concurrency limits are counted per account, and a job belongs to one account.

    Args:
        account_id: number of the main account (UIN).

    Raises:
        CredentialError: in this store the profile belongs to another account.
    """
    async with database.write() as connection:
        row = {
            "profile": profile,
            "account_id": account_id,
            "seen_at": await database.now(connection),
        }
        await connection.execute(insert_or_ignore(connection, accounts).values(row))
        query = accounts.select().where(accounts.c.profile == profile)
        known: str = (await connection.execute(query)).one().account_id
    if known != account_id:
        raise CredentialError(
            f"The keys of profile {profile!r} belong to account {account_id}; in this store the "
            f"profile belongs to account {known}. Nothing was sent.",
            "Name the profile of this account with --profile, or put the keys of account "
            f"{known} in force; another account needs another profile or another store.",
        )
