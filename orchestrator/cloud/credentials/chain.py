"""Where keys are looked for, in order: the environment, files, the instance's role."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.assumed_role import assumed
from orchestrator.cloud.credentials.base import (
    AssumedRole,
    Credential,
    CredentialSource,
    Found,
    StaticCredentials,
)
from orchestrator.cloud.credentials.environment import (
    ENVIRONMENT,
    in_environment,
    role_in_environment,
)
from orchestrator.cloud.credentials.files import in_shared_file, in_tccli_profile
from orchestrator.cloud.credentials.instance_role import of_instance
from orchestrator.cloud.credentials.refreshing import RefreshingCredentials
from orchestrator.errors import CredentialError


@dataclass(frozen=True, slots=True)
class CredentialProviders:
    """Who lends keys for a while.

    Args:
        sts: base URL of STS.
        metadata: base URL of the service that tells an instance of itself.
        clock: by which keys run out, and that dates signatures.
        tell: takes sentences for the user.
    """

    sts: str
    metadata: str
    clock: ServerClock
    notify: Callable[[str], None]

    def instance(self) -> CredentialSource:
        """The keys of this instance's role."""
        return RefreshingCredentials(partial(of_instance, self.metadata), self.clock, self.notify)

    def assume(self, role: AssumedRole, base: CredentialSource) -> CredentialSource:
        """The keys of a role, for the holder of others."""
        return RefreshingCredentials(
            partial(assumed, role, base, self.sts, self.clock), self.clock, self.notify
        )


async def find_credentials(
    profile: str, environ: Mapping[str, str], home: Path, lenders: CredentialProviders
) -> CredentialSource:
    """The first place that holds keys for the profile, in force at once.

    Raises:
        CredentialError: no place holds keys, or the first that does cannot be used.
    """
    tccli = home / ".tccli" / f"{profile}.credential"
    shared = home / ".tencentcloud" / "credentials"
    places: Mapping[str, Callable[[], Found | None]] = {
        f"the environment ({ENVIRONMENT[0]}, {ENVIRONMENT[1]})": partial(in_environment, environ),
        str(tccli): partial(in_tccli_profile, tccli),
        f"{shared} [{profile}]": partial(in_shared_file, shared, profile),
    }
    role = role_in_environment(environ)
    for place, read in places.items():
        if (found := read()) is not None:
            return await _in_force(_base(place, read, found, lenders), role or found.role, lenders)
    instance = lenders.instance()
    try:
        await instance.current()
    except CredentialError as error:
        raise CredentialError(
            f"No Tencent Cloud keys for profile {profile!r}; looked at: {'; '.join(places)}; the "
            f"instance's role ({error.message.rstrip('.')}).",
            f"Set {ENVIRONMENT[0]} and {ENVIRONMENT[1]}, or run: tccli configure "
            f"--profile {profile}",
        ) from error
    return await _in_force(instance, role, lenders)


async def _in_force(
    base: CredentialSource, role: AssumedRole | None, lenders: CredentialProviders
) -> CredentialSource:
    source = base if role is None else lenders.assume(role, base)
    await source.current()
    return source


def _base(
    place: str, read: Callable[[], Found | None], found: Found, lenders: CredentialProviders
) -> CredentialSource:
    if found.by_instance:
        return lenders.instance()

    def keys() -> Credential | None:
        again = read()
        return None if again is None else again.credential

    return StaticCredentials(place, keys, lenders.clock)
