"""The order in which credentials are looked for: environment, files, the instance's role."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from anyio import to_thread

from orchestrator.clock import iso
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.assumed_role import assume_role
from orchestrator.cloud.credentials.base import Credential, CredentialSource
from orchestrator.cloud.credentials.instance_role import fetch_instance_credential
from orchestrator.cloud.credentials.stored import (
    VARIABLES,
    StoredCredential,
    read_environment,
    read_shared_file,
    read_tccli_profile,
    role_in_environment,
)
from orchestrator.errors import CredentialError


async def find_credentials(
    profile: str,
    environ: Mapping[str, str],
    home: Path,
    *,
    sts_endpoint: str,
    metadata_endpoint: str,
    clock: ServerClock,
    notify: Callable[[str], None],
) -> CredentialSource:
    """Return the first source that has a credential for the profile; that one is fetched already.

    Args:
        clock: decides about expiry, and dates the signatures of STS requests.
        notify: takes sentences for the user.

    Raises:
        CredentialError: there is no credential, or the first one found cannot be used.
    """
    tccli = home / ".tccli" / f"{profile}.credential"
    shared = home / ".tencentcloud" / "credentials"  # of the vendor's SDKs, a section per profile
    locations: Mapping[str, Callable[[], StoredCredential | None]] = {
        f"the environment ({VARIABLES[0]}, {VARIABLES[1]})": partial(read_environment, environ),
        str(tccli): partial(read_tccli_profile, tccli),
        f"{shared} [{profile}]": partial(read_shared_file, shared, profile),
    }
    instance = CredentialSource(
        partial(fetch_instance_credential, metadata_endpoint), clock, notify
    )
    source = instance
    role = role_in_environment(environ)
    for location, read in locations.items():
        if (stored := read()) is not None:
            role = role or stored.role
            if stored.credential is not None:
                # only the program that wrote a credential can renew it
                source = CredentialSource(
                    partial(_read, location, read, clock), clock, notify, ahead=False
                )
            break
    else:
        try:
            await instance.current()
        except CredentialError as error:
            raise CredentialError(
                f"No Tencent Cloud credentials for profile {profile!r}. Looked in: "
                f"{'; '.join(locations)}; the instance's role ({error.message.rstrip('.')}).",
                f"Set {VARIABLES[0]} and {VARIABLES[1]}, or run: tccli configure "
                f"--profile {profile}",
            ) from error
    if role is not None:
        source = CredentialSource(
            partial(assume_role, role, source, sts_endpoint, clock), clock, notify
        )
    await source.current()
    return source


async def _read(
    location: str, read: Callable[[], StoredCredential | None], clock: ServerClock
) -> Credential:
    """Read a stored credential: another program may have written a new one.

    Raises:
        CredentialError: nothing usable is stored there now.
    """
    stored = await to_thread.run_sync(read)
    if stored is None or stored.credential is None:
        raise CredentialError(
            f"The credential is gone from {location}.", "Store a credential there again."
        )
    expires_at = stored.credential.expires_at
    if expires_at is not None and expires_at <= clock.now():
        raise CredentialError(
            f"The login in {location} expired at {iso(expires_at)}.",
            "Log in again with: tccli auth login (or: tccli sso login)",
        )
    return stored.credential
