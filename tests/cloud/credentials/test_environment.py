"""Credentials and roles in environment variables."""

import pytest

from orchestrator.cloud.credentials.base import Credential, Role
from orchestrator.cloud.credentials.stored import (
    StoredCredential,
    read_environment,
    role_in_environment,
)
from orchestrator.errors import CredentialError

from .stored import ENVIRONMENT, SECRET


def test_credential_with_its_token_is_read() -> None:
    """SecretId, SecretKey and token come from the three variables."""
    stored = read_environment({**ENVIRONMENT, "TENCENTCLOUD_TOKEN": "t"})
    assert stored == StoredCredential(Credential("AKIDenv", SECRET, "t"))


@pytest.mark.parametrize("environ", [{}, {"TENCENTCLOUD_SECRET_ID": ""}])
def test_environment_without_a_credential_is_none(environ: dict[str, str]) -> None:
    """An empty variable counts as not set."""
    assert read_environment(environ) is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"TENCENTCLOUD_SECRET_KEY": SECRET},
            "TENCENTCLOUD_SECRET_KEY is set but TENCENTCLOUD_SECRET_ID is not.",
        ),
        (
            {"TENCENTCLOUD_SECRET_ID": "AKIDenv", "TENCENTCLOUD_SECRET_KEY": ""},
            "TENCENTCLOUD_SECRET_ID is set but TENCENTCLOUD_SECRET_KEY is not.",
        ),
        (
            {**ENVIRONMENT, "TENCENTCLOUD_SECRET_KEY": f"{SECRET}\n"},
            "TENCENTCLOUD_SECRET_KEY has spaces around it.",
        ),
        (
            {**ENVIRONMENT, "TENCENTCLOUD_SECRET_ID": " AKIDenv"},
            "TENCENTCLOUD_SECRET_ID has spaces around it.",
        ),
        (
            {**ENVIRONMENT, "TENCENTCLOUD_TOKEN": f"{SECRET}é"},
            "TENCENTCLOUD_TOKEN has characters that no key has.",
        ),
    ],
)
def test_invalid_variable_is_named_without_its_value(environ: dict[str, str], message: str) -> None:
    """Half a pair, spaces and impossible characters are refused by the variable's name."""
    with pytest.raises(CredentialError) as caught:
        read_environment(environ)
    assert caught.value.message == message
    assert caught.value.remedy
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "role"),
    [
        ({}, None),
        ({"TENCENTCLOUD_ROLE_SESSION_NAME": "night"}, None),
        ({"TENCENTCLOUD_ROLE_ARN": "arn"}, Role("arn", "orchestrator")),
        (
            {"TENCENTCLOUD_ROLE_ARN": "arn", "TENCENTCLOUD_ROLE_SESSION_NAME": "night"},
            Role("arn", "night"),
        ),
    ],
)
def test_role_has_a_default_session_name(environ: dict[str, str], role: Role | None) -> None:
    """The ARN alone is enough to assume a role."""
    assert role_in_environment(environ) == role
