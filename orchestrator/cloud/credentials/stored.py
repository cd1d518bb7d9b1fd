"""Credentials that are stored in the environment or in the files of the vendor's own tools.

The names are those of tccli, of the vendor's SDKs and of its Terraform provider. What these tools
know and this program does not support is refused by its name.
"""

import json
import re
from collections.abc import Iterable, Mapping
from configparser import ConfigParser, DuplicateOptionError, DuplicateSectionError
from configparser import Error as IniError
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.cloud.credentials.base import Credential, Role
from orchestrator.cloud.credentials.value_check import checked_key, checked_name, is_secret_id
from orchestrator.errors import CredentialError

VARIABLES = ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY")

TOKEN_VARIABLES = ("TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN")
"""Of tccli and of Terraform; a token that was left over without keys signs nothing."""

ROLE_VARIABLES = ("TENCENTCLOUD_ROLE_ARN", "TENCENTCLOUD_ASSUME_ROLE_ARN")
"""Of tccli and of Terraform."""

WEB_IDENTITY_VARIABLES = (
    "TKE_ROLE_ARN",
    "TKE_PROVIDER_ID",
    "TKE_WEB_IDENTITY_TOKEN_FILE",
    "TKE_REGION",
)
"""TKE sets them in a pod whose service account has a role."""

FUNCTION_VARIABLES = ("TENCENTCLOUD_SECRETID", "TENCENTCLOUD_SECRETKEY")
"""Cloud functions (SCF) set them; they are only named in messages."""

_UNSUPPORTED_VARIABLES = (
    *(
        f"TENCENTCLOUD_ASSUME_ROLE_{name}"
        for name in (
            "SAML_ASSERTION",
            "PRINCIPAL_ARN",
            "WEB_IDENTITY_TOKEN",
            "WEB_IDENTITY_TOKEN_FILE",
            "PROVIDER_ID",
            "SOURCE_IDENTITY",
            "SERIAL_NUMBER",
            "TOKEN_CODE",
        )
    ),
    "TENCENTCLOUD_MFA_CERTIFICATION_SERIAL_NUMBER",
    "TENCENTCLOUD_MFA_CERTIFICATION_TOKEN_CODE",
)
_INSTANCE_ROLE_VARIABLE = "TENCENTCLOUD_CAM_ROLE_NAME"
"""With these Terraform signs with other keys (source: its provider.go); with the last one with the
role of the instance."""

_UNSUPPORTED_FIELDS = frozenset(
    {
        "credentialprocess",
        "credentialsource",
        "mfaserial",
        "policy",
        "principalarn",
        "providerid",
        "samlassertion",
        "serialnumber",
        "sourceidentity",
        "tokencode",
        "webidentitytoken",
        "webidentitytokenfile",
    }
)
"""Fields of a profile that would select other keys or other rights."""

_DEFAULT_SECONDS = 7200
_MAX_SECONDS = 43_200
"""Lifetimes of a role's credentials (source: the vendor's page of AssumeRole)."""


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """The credential and the roles that the environment or a file defines.

    Args:
        credential: ``None`` if that of the CVM instance's role is to be used.
        roles: roles to assume with it, each with the credential of the one before.
        source: the profile that holds the credential, if it is another one.
    """

    credential: Credential | None
    roles: tuple[Role, ...] = ()
    source: str | None = None


@dataclass(frozen=True, slots=True)
class WebIdentity:
    """The role of a pod's service account, and where the pod's token is."""

    role: Role
    provider_id: str
    token_file: Path
    region: str


@dataclass(frozen=True, slots=True)
class _Field:
    """A value, and how messages name it.

    Args:
        place: prefix of the name: the file and its section.
    """

    place: str
    name: str
    value: Any = None

    def key(self) -> str | None:
        return checked_key(self.place + self.name, self.value)

    def text(self) -> str | None:
        return checked_name(self.place + self.name, self.value)

    def refusal(self, problem: str, remedy: str) -> CredentialError:
        return CredentialError(f"{self.place}{self.name} {problem}.", remedy)


def first_set(environ: Mapping[str, str], names: Iterable[str]) -> str | None:
    """Return the first of these variables that is set and not empty."""
    return next((name for name in names if environ.get(name)), None)


def role_in_environment(environ: Mapping[str, str]) -> Role | None:
    """Return the role to assume, wherever the credential comes from.

    Raises:
        CredentialError: a value is not valid, or two variables contradict each other.
    """

    def of_either_tool(name: str) -> _Field:
        return _one_of(environ, f"TENCENTCLOUD_{name}", f"TENCENTCLOUD_ASSUME_{name}")

    return _role(
        of_either_tool("ROLE_ARN"),
        of_either_tool("ROLE_SESSION_NAME"),
        of_either_tool("ROLE_EXTERNAL_ID"),
        of_either_tool("ROLE_SESSION_DURATION"),
    )


def read_environment(environ: Mapping[str, str]) -> StoredCredential | None:
    """Return the credential in the environment.

    Raises:
        CredentialError: half of a pair is missing, or a value is not a key.
    """
    if first_set(environ, VARIABLES) is None:
        return None
    secret_id, secret_key = (_Field("", name, environ.get(name)) for name in VARIABLES)
    credential = _credential(secret_id, secret_key, _one_of(environ, *TOKEN_VARIABLES))
    return None if credential is None else StoredCredential(credential)


def refuse_unsupported_variables(environ: Mapping[str, str], *, is_instance: bool) -> None:
    """Refuse variables with which Terraform signs with other keys than this program.

    Args:
        is_instance: whether this program signs with the role of the instance, of which there is
            only one.

    Raises:
        CredentialError: one of them is set.
    """
    names = _UNSUPPORTED_VARIABLES + (() if is_instance else (_INSTANCE_ROLE_VARIABLE,))
    if (name := first_set(environ, names)) is not None:
        raise CredentialError(
            f"{name} is set; this program does not support it and would sign with other keys.",
            "Unset it to use the keys without it.",
        )


def web_identity_in_environment(environ: Mapping[str, str]) -> WebIdentity | None:
    """Return the role of a TKE pod's service account, ``None`` outside such a pod.

    Raises:
        CredentialError: some of the variables are missing, or a value is not valid.
    """
    fields = [_Field("", name, environ.get(name)) for name in WEB_IDENTITY_VARIABLES]
    arn, provider_id, token_file, region = (field.text() for field in fields)
    if not (arn or provider_id or token_file):
        return None
    if not (arn and provider_id and token_file and region):
        missing = next(field.name for field in fields if not field.value)
        present = next(field.name for field in fields if field.value)
        raise CredentialError(
            f"{present} is set but {missing} is not.",
            "TKE sets them together: give the pod a service account with a role.",
        )
    return WebIdentity(Role(arn), provider_id, Path(token_file), region)


def read_web_identity_token(identity: WebIdentity) -> str:
    """Return the pod's present token; the cluster replaces it from time to time.

    Raises:
        CredentialError: the file is missing, empty or not a token.
    """
    name = f"{identity.token_file} (TKE_WEB_IDENTITY_TOKEN_FILE)"
    token = checked_key(name, (_read_text(identity.token_file) or "").strip())
    if token is None:
        raise CredentialError(
            f"{name} is missing or empty.", "Give the pod a service account with a role."
        )
    return token


def read_tccli_profile(path: Path) -> StoredCredential | None:
    """Return what a profile of tccli holds.

    Return ``None`` if the file or the key is missing.

    Raises:
        CredentialError: the file cannot be read, or a value in it is not valid.
    """
    text = _read_text(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        # the message does not quote the file: it holds secrets
        raise CredentialError(
            f"{path} is not a JSON object.",
            f"Write a new one with: tccli configure --profile {path.stem}",
        )
    fields = _Fields(f"{path}: ", content.items())
    role = fields.role("role-arn", "role-session-name")
    roles = () if role is None else (role,)
    if content.get("type") == "cvm-role" or content.get("use-cvm-role") in (True, "true"):
        return StoredCredential(None, roles)
    expires_at = _parse_expiry(path, content.get("expiresAt"))
    credential = fields.credential("secretId", "secretKey", expires_at)
    if credential is not None:
        return StoredCredential(credential, roles)
    if role is not None:
        raise fields.find("role-arn").refusal(
            "is set but secretId and secretKey are not",
            f"Set them with: tccli configure --profile {path.stem}",
        )
    return None


def read_shared_file(path: Path, section: str) -> StoredCredential | None:
    """Return what one section of the SDKs' file defines.

    A section with ``role_arn`` has keys of its own, or names the section that has them as its
    ``source_profile``, as in AWS's files. Return ``None`` if the section is missing or has no keys.

    Raises:
        CredentialError: the file cannot be read, or a value in it is not valid.
    """
    return _section(path, _parse_ini(path), section, ())


def has_section(path: Path, section: str) -> bool:
    """Return whether the SDKs' file has a section, with or without keys.

    Raises:
        CredentialError: the file cannot be read.
    """
    return _parse_ini(path).has_section(section)


def _parse_ini(path: Path) -> ConfigParser:
    # percent signs and a section [DEFAULT] have no special meaning
    parser = ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(_read_text(path) or "")
    except IniError as error:
        raise _ini_refusal(path, error) from None
    return parser


def _section(
    path: Path, parser: ConfigParser, section: str, used_by: tuple[str, ...]
) -> StoredCredential | None:
    """Return what a section defines.

    Args:
        used_by: the sections whose ``source_profile`` leads here.
    """
    if not parser.has_section(section):
        _refuse_similar_section(path, parser, section)
        return None
    fields = _Fields(f"{path} [{section}]: ", parser[section].items())
    role = fields.role("role_arn", "role_session_name", "session_name")
    credential = fields.credential("secret_id", "secret_key")
    source, name = fields.find("source_profile"), fields.find("source_profile").text()
    if role is None:
        if name is not None:
            raise source.refusal("is set but role_arn is not", "Set both, or neither.")
        return None if credential is None else StoredCredential(credential)
    if name is None or name == section:
        if credential is None:
            raise fields.find("role_arn").refusal(
                "is set, but the section has neither secret_id and secret_key nor source_profile",
                "Add source_profile, the section whose keys may assume the role.",
            )
        return StoredCredential(credential, (role,))
    if credential is not None:
        raise source.refusal(
            "is set beside secret_id", "Remove the one whose keys must not assume the role."
        )
    if name in used_by:
        raise source.refusal(
            f"leads back to [{name}]", "The last source_profile must name a section with keys."
        )
    found = _section(path, parser, name, (*used_by, section))
    if found is None:
        raise source.refusal(
            f"is {name}, but the file has no keys in a section [{name}]",
            f"Add secret_id and secret_key to a section [{name}], or correct the name.",
        )
    return StoredCredential(found.credential, (*found.roles, role), found.source or name)


def _refuse_similar_section(path: Path, parser: ConfigParser, section: str) -> None:
    for other in parser.sections():
        if other.strip().removeprefix("profile ").strip().lower() == section.lower():
            raise CredentialError(
                f"{path} has a section [{other}], but none that is named [{section}].",
                f"Rename it to [{section}]: the names are compared letter by letter.",
            )


def _ini_refusal(path: Path, error: IniError) -> CredentialError:
    # the parser's own message quotes the line, which may hold a secret
    remedy = "It needs a section such as [default] with secret_id and secret_key, a line each."
    lines = [line for line, _ in getattr(error, "errors", ())]
    line = lines[0] if lines else getattr(error, "lineno", None)
    place = str(path) if line is None else f"{path}, line {line}"
    match error:
        case DuplicateSectionError():
            return CredentialError(
                f"{place}: the section [{error.section}] is there twice.", "Remove one of them."
            )
        case DuplicateOptionError():
            return CredentialError(
                f"{place}: the section [{error.section}] has a name twice.", "Remove one of them."
            )
        case _:
            return CredentialError(f"{place} is not a readable INI file.", remedy)


class _Fields:
    """The fields of a profile in a file; case, ``-`` and ``_`` in their names do not count.

    Args:
        place: prefix of their names in messages.

    Raises:
        CredentialError: a field is there twice, or is not supported.
    """

    def __init__(self, place: str, items: Iterable[tuple[str, Any]]) -> None:
        self._place = place
        self._fields: dict[str, _Field] = {}
        for name, value in items:
            field, key = _Field(place, name, value), _canonical(name)
            if not value:
                continue
            if key in _UNSUPPORTED_FIELDS:
                raise field.refusal(
                    "is not supported, and without it this program would sign with other keys",
                    "Use a profile without it.",
                )
            if key in self._fields and value != self._fields[key].value:
                raise field.refusal(f"contradicts {self._fields[key].name}", "Remove one of them.")
            self._fields[key] = field

    def find(self, *names: str) -> _Field:
        """Return the first of these fields that is set, else an empty one."""
        found = (self._fields.get(_canonical(name)) for name in names)
        return next(filter(None, found), _Field(self._place, names[0]))

    def credential(
        self, secret_id: str, secret_key: str, expires_at: datetime | None = None
    ) -> Credential | None:
        token = self.find("token", "security_token", "session_token")
        return _credential(self.find(secret_id), self.find(secret_key), token, expires_at)

    def role(self, arn: str, *session_names: str) -> Role | None:
        return _role(
            self.find(arn),
            self.find(*session_names),
            self.find("external_id"),
            self.find("duration_seconds"),
        )


def _canonical(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def _one_of(environ: Mapping[str, str], first: str, second: str) -> _Field:
    """Return the variable that is set, of two names for the same."""
    one, other = environ.get(first), environ.get(second)
    if one and other and one != other:
        raise CredentialError(f"{first} and {second} are set and differ.", "Unset one of them.")
    return _Field("", second, other) if other and not one else _Field("", first, one)


def _role(arn: _Field, session_name: _Field, external_id: _Field, seconds: _Field) -> Role | None:
    """Return the role that these fields describe, ``None`` without an ARN."""
    name = arn.text()
    if name is None:
        return None
    return Role(
        name,
        session_name.text() or "orchestrator",
        external_id.text(),
        _parse_lifetime(seconds),
    )


def _parse_lifetime(field: _Field) -> int:
    text = str(field.value or _DEFAULT_SECONDS).strip()
    if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) <= _MAX_SECONDS:
        return int(text)
    raise field.refusal(
        f"is not a whole number of seconds from 1 to {_MAX_SECONDS}", "Correct it, or remove it."
    )


def _credential(
    secret_id: _Field, secret_key: _Field, token: _Field, expires_at: datetime | None = None
) -> Credential | None:
    """Return the credential in these fields, ``None`` without one.

    Raises:
        CredentialError: a part is missing, is not valid, or is in the place of another.
    """
    fields = (secret_id, secret_key, token)
    identity, key, session = (field.key() for field in fields)
    if identity is not None and key is not None:
        if is_secret_id(key):
            problem = "begins like a SecretId"
            if not is_secret_id(identity):
                problem += f": it and {secret_id.name} have changed places"
            raise secret_key.refusal(problem, "Set each to its own part of the API key.")
        return Credential(identity, key, session, expires_at)
    present = next((field for field in fields if field.value), None)
    if present is None:
        return None
    missing = secret_key if present is secret_id else secret_id
    raise present.refusal(f"is set but {missing.name} is not", "Set both, or neither.")


def _parse_expiry(path: Path, seconds: object) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC)
    except (ValueError, OverflowError, OSError):
        raise CredentialError(
            f"{path}: expiresAt is not a time in seconds.", "Log in again with tccli."
        ) from None


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CredentialError(
            f"{path} cannot be read: {error.strerror}.", "Correct its permissions, or remove it."
        ) from None
    except UnicodeDecodeError:
        raise CredentialError(f"{path} is not UTF-8 text.", "Save the file as UTF-8.") from None
