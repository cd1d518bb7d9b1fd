"""The order in which credentials are looked for: environment, files, the pod's and instance's role.

A profile that the user has named comes before the environment if a file has it. This is the order
of tccli; the chain of the vendor's SDKs has the instance's role before that of the pod.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
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
    WebIdentity,
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

_Fetch = Callable[[], Awaitable[Credential]]
_FetchForPod = Callable[[WebIdentity], Awaitable[Credential]]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Whose credential is looked for, and what decides where; see `find_credentials`."""

    profile: str
    environ: Mapping[str, str]
    home: Path | None
    is_named: bool


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
        variables: the variables that may have decided; others that say who signs are not used.
        path: the file that it was taken from.
        is_known: false if only a request can show whether there is a credential at all.
    """

    origin: str
    fetch: _Fetch
    ahead: bool = True
    variables: tuple[str, ...] = ()
    path: Path | None = None
    roles: tuple[Role, ...] = ()
    is_known: bool = True


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
    """Return the first source that has a credential for the profile.

    The source has already fetched its credential.

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
    wanted = _Wanted(profile, environ, home, is_named)
    locations, closed = _locations(wanted, system_file)
    from_instance = partial(fetch_instance_credential, metadata_endpoint)
    from_pod = partial(assume_role_with_web_identity, endpoint=sts_endpoint, clock=clock)
    found = _find_stored(locations, clock, from_instance)
    if not is_named or found is None or found.path is None:
        _refuse_doubtful_profile(wanted, locations)
        found = _with_environment(wanted, found, from_pod, from_instance)
    notes = _notes(wanted, found, closed)

    origin = ", ".join([found.origin, *(f"role {role.arn}" for role in found.roles)])
    source = CredentialSource(found.fetch, clock, notify, ahead=found.ahead, origin=origin)
    if not found.is_known:
        missing_home = (NO_HOME,) if home is None else ()
        await _require_instance_role(source, profile, locations, (*notes, *missing_home))
    in_brackets = f" ({'; '.join(notes)})" if notes else ""
    notify(f"Keys: {origin}{in_brackets}.")
    if found.path is not None and _is_readable_by_others(found.path):
        notify(f"Note: other users can read {found.path}; correct it with: chmod 600 {found.path}")
    for role in found.roles:
        fetch = partial(assume_role, role, source, sts_endpoint, clock)
        source = CredentialSource(fetch, clock, notify, origin=origin)
    await source.current()
    return source


def _locations(
    wanted: _Wanted, system_file: Path
) -> tuple[tuple[_Location, ...], tuple[_Location, ...]]:
    """Return the locations where a credential of the profile can be stored.

    Keys in the environment must work even if this user cannot open the home folder. So files in
    folders that cannot be opened are left out if they would come before these keys.

    Returns:
        The locations in the order in which they are read, and the files that are left out.
    """
    profile, environ, home = wanted.profile, wanted.environ, wanted.home
    folder = _path_in(environ, _TCCLI_FOLDER, home) or (home and home / ".tccli")
    chosen = _path_in(environ, _SHARED_FILE, home)
    shared = chosen or (home and home / ".tencentcloud" / "credentials")
    # unlike Path.exists, os.access raises nothing for a folder that cannot be opened
    if chosen is None and os.access(system_file, os.F_OK):
        shared = shared if shared is not None and os.access(shared, os.F_OK) else system_file
    files = []
    if folder is not None:
        tccli = folder / f"{profile}.credential"
        origin = f"profile {profile} of {_shortened(tccli, home)}"
        read = partial(read_tccli_profile, tccli)
        files.append(_Location(str(tccli), origin, read, tccli, tccli.exists))
    if shared is not None:
        origin = f"profile {profile} of {_shortened(shared, home)}"
        read = partial(read_shared_file, shared, profile)
        has_profile = partial(has_section, shared, profile)
        files.append(_Location(f"{shared} [{profile}]", origin, read, shared, has_profile))
    if chosen is not None and not environ.get(_TCCLI_FOLDER):
        files.reverse()
    variables = _Location(
        f"the environment ({VARIABLES[0]}, {VARIABLES[1]})",
        f"{VARIABLES[0]} and {VARIABLES[1]} in the environment",
        partial(read_environment, environ),
    )
    if not wanted.is_named:
        return (variables, *files), ()
    has_keys = first_set(environ, VARIABLES) is not None
    closed = tuple(one for one in files if has_keys and one.path and _is_closed(one.path))
    return (*(one for one in files if one not in closed), variables), closed


def _find_stored(
    locations: Iterable[_Location], clock: ServerClock, from_instance: _Fetch
) -> _Found | None:
    """Find the first location that has a credential or names the instance's role.

    Return what it holds, or ``None`` if there is no such location.
    """
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


def _with_environment(
    wanted: _Wanted, found: _Found | None, from_pod: _FetchForPod, from_instance: _Fetch
) -> _Found:
    """Return where the credential comes from if variables may decide this.

    Variables can name a role to assume, or identify this pod.

    Raises:
        CredentialError: a variable cannot be used, or leads to no keys.
    """
    role = role_in_environment(wanted.environ)
    if found is None and (identity := web_identity_in_environment(wanted.environ)) is not None:
        origin = f"the role {identity.role.arn} of this pod's service account (TKE_ROLE_ARN)"
        found = _Found(origin, partial(from_pod, identity), variables=WEB_IDENTITY_VARIABLES)
    is_instance = found is None or found.fetch is from_instance
    refuse_unsupported_variables(wanted.environ, is_instance=is_instance)
    if found is None:
        _refuse_empty_files(wanted)
        found = _Found("the role of this CVM instance", from_instance, is_known=False)
    roles = found.roles if role is None else (role,)
    return replace(found, variables=(*found.variables, *ROLE_VARIABLES), roles=roles)


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
    source: CredentialSource, profile: str, locations: Iterable[_Location], notes: Iterable[str]
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


def _refuse_doubtful_profile(wanted: _Wanted, locations: Iterable[_Location]) -> None:
    """Refuse a profile that has no keys or that the user may not have meant.

    A file may have the profile that the user has named, but without keys. A variable of Terraform
    may name another profile. In both cases other keys must not be used instead.

    Raises:
        CredentialError: the profile is refused.
    """
    empty = next((one for one in locations if wanted.is_named and one.has_profile()), None)
    if empty is not None:
        raise CredentialError(
            f"{empty.name} has no keys.",
            f"Store them with: tccli configure --profile {wanted.profile}",
        )
    is_decided = wanted.is_named or first_set(wanted.environ, VARIABLES)
    other = wanted.environ.get(_TERRAFORM_PROFILE)
    if not is_decided and other and other != wanted.profile:
        raise CredentialError(
            f"{_TERRAFORM_PROFILE} names profile {other!r}, but this program would use profile "
            f"{wanted.profile!r}.",
            "Name the profile that you want with --profile or ORCHESTRATOR_PROFILE.",
        )


def _refuse_empty_files(wanted: _Wanted) -> None:
    if variable := first_set(wanted.environ, (_SHARED_FILE, _TCCLI_FOLDER)):
        raise CredentialError(
            f"{variable} is set, but there are no keys of profile {wanted.profile!r} where it "
            "leads.",
            "Correct the variable, or unset it.",
        )


def _notes(wanted: _Wanted, found: _Found, closed: Iterable[_Location]) -> tuple[str, ...]:
    """Return notes about an unused profile name and about unused variables.

    Args:
        closed: files that may have the profile, in folders that this user cannot open.
    """
    profile, note = wanted.profile, ""
    folders = [_shortened(one.path.parent, wanted.home) for one in closed if one.path is not None]
    if found.path is None and folders:
        names = " and ".join(folders)
        note = f"{names} cannot be opened, so profile {profile} was not looked for"
    elif found.path is None and profile != "default":
        note = f"no credentials file has keys of profile {profile}"
        if VARIABLES[0] in found.variables and not wanted.is_named:
            note = f"profile {profile} of TCCLI_PROFILE is not used: these variables come first, as"
            note += f" in tccli; to use it: --profile {profile}"
    others = (group for group in _IDENTITIES if group[0] not in found.variables)
    unused = filter(None, (first_set(wanted.environ, group) for group in others))
    notes = (note, *(f"{name} in the environment is not used" for name in unused))
    return tuple(filter(None, notes))


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
