"""Credentials and roles that environment variables name."""

from collections.abc import Mapping

from orchestrator.cloud.credentials.base import (
    DEFAULT_SESSION_NAME,
    AssumedRole,
    Found,
    make_credential,
)

ENVIRONMENT = ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN")


def in_environment(environ: Mapping[str, str]) -> Found | None:
    """The keys of the environment; they serve every profile."""
    credential = make_credential("", ENVIRONMENT, environ)
    return None if credential is None else Found(credential)


def role_in_environment(environ: Mapping[str, str]) -> AssumedRole | None:
    """The role that the environment asks for, wherever the keys stand."""
    arn = environ.get("TENCENTCLOUD_ROLE_ARN")
    name = environ.get("TENCENTCLOUD_ROLEDEFAULT_SESSION_NAME") or DEFAULT_SESSION_NAME
    return AssumedRole(arn, name) if arn else None
