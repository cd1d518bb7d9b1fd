"""The order in which credentials are looked for: environment, files, the pod's and instance's role.

A profile that the user has named comes before the environment if a file has it. This is the order
of tccli; the chain of the vendor's SDKs has the instance's role before that of the pod.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import to_thread

from orchestrator.clock import iso
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.assumed_role import assume_role, assume_role_with_web_identity
from orchestrator.cloud.credentials.base import Credential, CredentialSource, Role
from orchestrator.cloud.credentials.instance_role import fetch_instance_credential
from orchestrator.cloud.credentials.stored import (
    FUNCTION_VARIABLES,
    ROLE_VARIABLES,
    TOKEN_VARIABLES,
    VARIABLES,
    WEB_IDENTITY_VARIABLES,
    StoredCredential,
    first_set,
    has_section,
    read_environment,
    read_shared_file,
    read_tccli_profile,
    refuse_unsupported_variables,
    role_in_environment,
    web_identity_in_environment,
)
from orchestrator.errors import CredentialError
from orchestrator.home_folder import NO_HOME

_SYSTEM_FILE = Path("/etc/tencentcloud/credentials")
"""The vendor's SDKs read it if the user has no file of this kind."""

_SHARED_FILE = "TENCENTCLOUD_CREDENTIALS_FILE"
"""Variable of the vendor's Go SDK: the file to read instead."""

_TCCLI_FOLDER = "TENCENTCLOUD_SHARED_CREDENTIALS_DIR"
_TERRAFORM_PROFILE = "TENCENTCLOUD_PROFILE"
"""Variables of the vendor's Terraform provider: tccli's folder, and the profile in it."""

_IDENTITIES = (
    (*VARIABLES, *TOKEN_VARIABLES),
    ROLE_VARIABLES,
    WEB_IDENTITY_VARIABLES,
    FUNCTION_VARIABLES,
)
"""Groups of variables that each say who signs."""


@dataclass(frozen=True, slots=True)
class _Location:
    """A place where a credential can be stored.

    Args:
        name: for messages about what is missing.
        origin: for messages about what is used.
        path: ``None`` is the environment.
        has_profile: whether the file has the profile, with or without keys.
    """

    name: str
    origin: str
    read: Callable[[], StoredCredential | None]
    path: Path | None = None
    has_profile: Callable[[], bool] = bool


@dataclass(frozen=True, slots=True)
class _Found:
    """Where the credential comes from that signs, or that assumes the roles.

    Args:
        ahead: whether it can be renewed ahead of its expiry.
        variables: the variables that it was taken from.
        path: the file that it was taken from.
    """

    origin: str
    fetch: Callable[[], Awaitable[Credential]]
    ahead: bool = True
    variables: tuple[str, ...] = ()
    path: Path | None = None
    roles: tuple[Role, ...] = ()


async def find_credentials(
    profile: str,
    environ: Mapping[str, str],
    home: Path | None,
    *,
    is_named: bool,
    sts_endpoint: str,
    metadata_endpoint: str,
    clock: ServerClock,
    notify: Callable[[str], None],
    system_file: Path = _SYSTEM_FILE,
) -> CredentialSource:
    """Return the first source that has a credential for the profile; that one is fetched already.

    Args:
        home: ``None`` if there is none; then only the files that variables name are read, and the
            one of all users.
        is_named: whether the user has named the profile to this program, and not only to tccli.
        clock: decides about expiry, and dates the signatures of STS requests.
        notify: takes sentences for the user; one of them says where the credential comes from.
        system_file: the shared file of all users.

    Raises:
        CredentialError: there is no credential, or the first one found cannot be used.
    """
    locations = _locations(profile, environ, home, system_file, is_named=is_named)
    closed: list[_Location] = []
    if is_named and first_set(environ, VARIABLES):
        # these keys must work without a home that this user can open
        closed = [one for one in locations if one.path is not None and _is_closed(one.path)]
        locations = tuple(one for one in locations if one not in closed)
    from_instance = partial(fetch_instance_credential, metadata_endpoint)
    found = _find_stored(locations, clock, from_instance)
    ignores_environment = is_named and found is not None and found.path is not None
    if is_named and not ignores_environment:
        _refuse_profile_without_keys(profile, locations)
    if not is_named and not first_set(environ, VARIABLES):
        _refuse_other_profile(profile, environ)
    role = None if ignores_environment else role_in_environment(environ)
    if found is None and (identity := web_identity_in_environment(environ)) is not None:
        found = _Found(
            f"the role {identity.role.arn} of this pod's service account (TKE_ROLE_ARN)",
            partial(assume_role_with_web_identity, identity, sts_endpoint, clock),
            variables=WEB_IDENTITY_VARIABLES,
        )
    is_known = found is not None
    if not ignores_environment:
        is_instance = found is None or found.fetch is from_instance
        refuse_unsupported_variables(environ, is_instance=is_instance)
    if found is None:
        _refuse_empty_files(profile, environ)
        found = _Found("the role of this CVM instance", from_instance)
    roles = found.roles if role is None else (role,)

    used = found.variables + (() if ignores_environment else ROLE_VARIABLES)
    notes = [
        *_profile_notes(profile, found, home, closed, is_named=is_named),
        *(
            f"{unused} in the environment is not used"
            for group in _IDENTITIES
            if group[0] not in used and (unused := first_set(environ, group))
        ),
    ]
    origin = ", ".join([found.origin, *(f"role {one.arn}" for one in roles)])
    in_brackets = f" ({'; '.join(notes)})" if notes else ""
    source = CredentialSource(found.fetch, clock, notify, ahead=found.ahead, origin=origin)
    if not is_known:
        missing_home = (NO_HOME,) if home is None else ()
        await _require_instance_role(source, profile, locations, (*notes, *missing_home))
    notify(f"Keys: {origin}{in_brackets}.")
    if found.path is not None and _is_readable_by_others(found.path):
        notify(f"Note: other users can read {found.path}; correct it with: chmod 600 {found.path}")
    for one in roles:
        source = CredentialSource(
            partial(assume_role, one, source, sts_endpoint, clock), clock, notify, origin=origin
        )
    await source.current()
    return source


def _locations(
    profile: str,
    environ: Mapping[str, str],
    home: Path | None,
    system_file: Path,
    *,
    is_named: bool,
) -> tuple[_Location, ...]:
    """Return the places where a credential of the profile can be stored, in their order."""
    folder = _path_in(environ, _TCCLI_FOLDER, home) or (home and home / ".tccli")
    chosen = _path_in(environ, _SHARED_FILE, home)
    shared = chosen or (home and home / ".tencentcloud" / "credentials")
    # unlike Path.exists, os.access raises nothing for a folder that cannot be opened
    if chosen is None and os.access(system_file, os.F_OK):
        shared = shared if shared is not None and os.access(shared, os.F_OK) else system_file
    files = []
    if folder is not None:
        tccli = folder / f"{profile}.credential"
        files.append(
            _Location(
                str(tccli),
                f"profile {profile} of {_shortened(tccli, home)}",
                partial(read_tccli_profile, tccli),
                tccli,
                tccli.exists,
            )
        )
    if shared is not None:
        files.append(
            _Location(
                f"{shared} [{profile}]",
                f"profile {profile} of {_shortened(shared, home)}",
                partial(read_shared_file, shared, profile),
                shared,
                partial(has_section, shared, profile),
            )
        )
    if chosen is not None and not environ.get(_TCCLI_FOLDER):
        files.reverse()
    variables = _Location(
        f"the environment ({VARIABLES[0]}, {VARIABLES[1]})",
        f"{VARIABLES[0]} and {VARIABLES[1]} in the environment",
        partial(read_environment, environ),
    )
    return (*files, variables) if is_named else (variables, *files)


def _find_stored(
    locations: tuple[_Location, ...],
    clock: ServerClock,
    from_instance: Callable[[], Awaitable[Credential]],
) -> _Found | None:
    """Return what the first location holds that has a credential or names the instance's role."""
    for location in locations:
        stored = location.read()
        if stored is None:
            continue
        origin = location.origin
        if stored.source is not None:
            origin += f" (keys of its source_profile {stored.source})"
        if stored.credential is None:
            origin += ", the role of this CVM instance"
            return _Found(origin, from_instance, path=location.path, roles=stored.roles)
        return _Found(
            origin,
            partial(_read, location, clock),
            # only the program that wrote a credential can renew it
            ahead=False,
            variables=VARIABLES if location.path is None else (),
            path=location.path,
            roles=stored.roles,
        )
    return None


async def _read(location: _Location, clock: ServerClock) -> Credential:
    """Read a stored credential: another program may have written a new one.

    Raises:
        CredentialError: nothing usable is stored there now.
    """
    stored = await to_thread.run_sync(location.read)
    if stored is None or stored.credential is None:
        raise CredentialError(
            f"The credential is gone from {location.name}.", "Store a credential there again."
        )
    expires_at = stored.credential.expires_at
    if expires_at is not None and expires_at <= clock.now():
        raise CredentialError(
            f"The login in {location.name} expired at {iso(expires_at)}.",
            "Log in again with: tccli auth login (or: tccli sso login)",
        )
    return stored.credential


async def _require_instance_role(
    source: CredentialSource, profile: str, locations: tuple[_Location, ...], notes: Iterable[str]
) -> None:
    """Fetch the credential of the instance's role.

    Args:
        notes: what else the error says.

    Raises:
        CredentialError: there is none, so that there is no credential at all.
    """
    try:
        await source.current()
    except CredentialError as error:
        places = "; ".join(one.name for one in locations)
        instance = f"the instance's role ({error.message.rstrip('.')})"
        raise CredentialError(
            f"No Tencent Cloud credentials for profile {profile!r}. Looked in: "
            f"{'; '.join((places, instance, *notes))}.",
            f"Set {VARIABLES[0]} and {VARIABLES[1]}, or run: tccli configure --profile {profile}",
        ) from error


def _refuse_other_profile(profile: str, environ: Mapping[str, str]) -> None:
    other = environ.get(_TERRAFORM_PROFILE)
    if other and other != profile:
        raise CredentialError(
            f"{_TERRAFORM_PROFILE} names profile {other!r}, but this program would use profile "
            f"{profile!r}.",
            "Name the profile that you want with --profile or ORCHESTRATOR_PROFILE.",
        )


def _refuse_profile_without_keys(profile: str, locations: Iterable[_Location]) -> None:
    """Refuse a profile that a file has, but without keys: other keys must not take their place."""
    for location in locations:
        if location.has_profile():
            raise CredentialError(
                f"{location.name} has no keys.",
                f"Store them with: tccli configure --profile {profile}",
            )


def _refuse_empty_files(profile: str, environ: Mapping[str, str]) -> None:
    variable = first_set(environ, (_SHARED_FILE, _TCCLI_FOLDER))
    if variable is not None:
        raise CredentialError(
            f"{variable} is set, but there are no keys of profile {profile!r} where it leads.",
            "Correct the variable, or unset it.",
        )


def _profile_notes(
    profile: str, found: _Found, home: Path | None, closed: Iterable[_Location], *, is_named: bool
) -> tuple[str, ...]:
    """Return what to say of a profile whose name had no influence.

    Args:
        closed: files that may have the profile, in folders that this user cannot open.
    """
    if found.path is not None:
        return ()
    folders = [_shortened(one.path.parent, home) for one in closed if one.path is not None]
    if folders:
        names = " and ".join(folders)
        return (f"{names} cannot be opened, so profile {profile} was not looked for",)
    if profile == "default":
        return ()
    if found.variables == VARIABLES and not is_named:
        note = f"profile {profile} of TCCLI_PROFILE is not used: these variables come first, as in"
        return (f"{note} tccli; to use it: --profile {profile}",)
    return (f"no credentials file has keys of profile {profile}",)


def _is_closed(path: Path) -> bool:
    """Return whether a file may exist in a folder that this user cannot open."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _is_readable_by_others(path: Path) -> bool:
    """Return whether the modes of a file and of its folders let other users read it."""
    try:
        return bool(path.stat().st_mode & 0o044) and all(
            parent.stat().st_mode & 0o011 for parent in path.absolute().parents
        )
    except OSError:
        return False


def _path_in(environ: Mapping[str, str], variable: str, home: Path | None) -> Path | None:
    value = environ.get(variable)
    if not value:
        return None
    if not value.startswith("~/"):
        return Path(value)
    if home is None:
        raise CredentialError(
            f"{variable} begins with ~, but {NO_HOME}.", "Set HOME, or give an absolute path."
        )
    return home / value[2:]


def _shortened(path: Path, home: Path | None) -> str:
    if home is None or not path.is_relative_to(home):
        return str(path)
    return f"~/{path.relative_to(home)}"
