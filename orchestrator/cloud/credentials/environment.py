"""The credential and the role that environment variables name."""

from collections.abc import Mapping

from orchestrator.cloud.credentials.base import (
    DEFAULT_SESSION_NAME,
    Role,
    StoredCredential,
    parse_stored_credential,
)

VARIABLES = ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN")


def read_environment(environ: Mapping[str, str]) -> StoredCredential | None:
    """Return the credential in the environment; it is used for every profile."""
    return parse_stored_credential("", VARIABLES, environ)


def role_in_environment(environ: Mapping[str, str]) -> Role | None:
    """Return the role to assume, wherever the credential comes from."""
    arn = environ.get("TENCENTCLOUD_ROLE_ARN")
    session_name = environ.get("TENCENTCLOUD_ROLE_SESSION_NAME") or DEFAULT_SESSION_NAME
    return Role(arn, session_name) if arn else None
