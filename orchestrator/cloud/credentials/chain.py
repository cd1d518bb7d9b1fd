"""The order in which credentials are looked for: environment, files, the instance's role."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.assumed_role import assume_role
from orchestrator.cloud.credentials.base import Credential, CredentialSource, StoredCredential
from orchestrator.cloud.credentials.environment import (
    VARIABLES,
    read_environment,
    role_in_environment,
)
from orchestrator.cloud.credentials.files import read_shared_file, read_tccli_profile
from orchestrator.cloud.credentials.instance_role import fetch_instance_credential
from orchestrator.cloud.credentials.refreshing import RefreshingCredentials
from orchestrator.cloud.credentials.stored import StaticCredentials
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
    shared = home / ".tencentcloud" / "credentials"
    places: Mapping[str, Callable[[], StoredCredential | None]] = {
        f"the environment ({VARIABLES[0]}, {VARIABLES[1]})": partial(read_environment, environ),
        str(tccli): partial(read_tccli_profile, tccli),
        f"{shared} [{profile}]": partial(read_shared_file, shared, profile),
    }
    instance = RefreshingCredentials(
        partial(fetch_instance_credential, metadata_endpoint), clock, notify
    )
    source: CredentialSource = instance
    role = role_in_environment(environ)
    for place, read in places.items():
        if (stored := read()) is not None:
            role = role or stored.role
            if not stored.use_instance_role:
                source = StaticCredentials(place, partial(_credential_of, read), clock)
            break
    else:
        try:
            await instance.current()
        except CredentialError as error:
            raise CredentialError(
                f"No Tencent Cloud credentials for profile {profile!r}. Looked in: "
                f"{'; '.join(places)}; the instance's role ({error.message.rstrip('.')}).",
                f"Set {VARIABLES[0]} and {VARIABLES[1]}, or run: tccli configure "
                f"--profile {profile}",
            ) from error
    if role is not None:
        source = RefreshingCredentials(
            partial(assume_role, role, source, sts_endpoint, clock), clock, notify
        )
    await source.current()
    return source


def _credential_of(read: Callable[[], StoredCredential | None]) -> Credential | None:
    stored = read()
    return None if stored is None else stored.credential
