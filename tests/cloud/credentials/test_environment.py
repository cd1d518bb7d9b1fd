"""Credentials and roles in environment variables."""

import pytest

from orchestrator.cloud.credentials.base import Credential, Role
from orchestrator.cloud.credentials.stored import (
    StoredCredential,
    read_environment,
    refuse_unsupported_variables,
    role_in_environment,
)
from orchestrator.errors import CredentialError

from .stored import ENVIRONMENT, SECRET


def test_credential_with_its_token_is_read() -> None:
    """SecretId, SecretKey and token come from the three variables."""
    stored = read_environment({**ENVIRONMENT, "TENCENTCLOUD_TOKEN": "t"})
    assert stored == StoredCredential(Credential("AKIDenv", SECRET, "t"))


def test_token_may_have_the_name_that_terraform_uses() -> None:
    """Temporary keys that were set for Terraform are used with their token."""
    stored = read_environment({**ENVIRONMENT, "TENCENTCLOUD_SECURITY_TOKEN": "t"})
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
            {**ENVIRONMENT, "TENCENTCLOUD_SECRET_KEY": f'"{SECRET}"'},
            "TENCENTCLOUD_SECRET_KEY has quotes around it.",
        ),
        (
            {**ENVIRONMENT, "TENCENTCLOUD_TOKEN": SECRET, "TENCENTCLOUD_SECURITY_TOKEN": "t"},
            "TENCENTCLOUD_TOKEN and TENCENTCLOUD_SECURITY_TOKEN are set and differ.",
        ),
        (
            {"TENCENTCLOUD_SECRET_ID": SECRET, "TENCENTCLOUD_SECRET_KEY": "AKIDenv"},
            (
                "TENCENTCLOUD_SECRET_KEY begins like a SecretId: it and TENCENTCLOUD_SECRET_ID "
                "have changed places."
            ),
        ),
        (
            {"TENCENTCLOUD_SECRET_ID": "IKIDenv", "TENCENTCLOUD_SECRET_KEY": "IKIDenv"},
            "TENCENTCLOUD_SECRET_KEY begins like a SecretId.",
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
    """The error names the invalid variable and does not show its value.

    Half a pair, spaces and impossible characters are invalid.
    """
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
        (
            {
                "TENCENTCLOUD_ASSUME_ROLE_ARN": "arn",
                "TENCENTCLOUD_ASSUME_ROLE_SESSION_NAME": "plan",
                "TENCENTCLOUD_ASSUME_ROLE_SESSION_DURATION": "3600",
                "TENCENTCLOUD_ASSUME_ROLE_EXTERNAL_ID": "x1",
            },
            Role("arn", "plan", "x1", 3600),
        ),
        (
            {"TENCENTCLOUD_ROLE_ARN": "arn", "TENCENTCLOUD_ASSUME_ROLE_ARN": "arn"},
            Role("arn", "orchestrator"),
        ),
    ],
)
def test_role_has_a_default_session_name(environ: dict[str, str], role: Role | None) -> None:
    """The ARN alone is enough; the names are those of tccli and of Terraform."""
    assert role_in_environment(environ) == role


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"TENCENTCLOUD_ROLE_ARN": "a", "TENCENTCLOUD_ASSUME_ROLE_ARN": "b"},
            "TENCENTCLOUD_ROLE_ARN and TENCENTCLOUD_ASSUME_ROLE_ARN are set and differ.",
        ),
        ({"TENCENTCLOUD_ROLE_ARN": "'a'"}, "TENCENTCLOUD_ROLE_ARN has quotes around it."),
        (
            {
                "TENCENTCLOUD_ROLE_ARN": "a",
                "TENCENTCLOUD_ASSUME_ROLE_SESSION_DURATION": "1h",
            },
            (
                "TENCENTCLOUD_ASSUME_ROLE_SESSION_DURATION is not a whole number of seconds from "
                "1 to 43200."
            ),
        ),
    ],
)
def test_invalid_role_is_named(environ: dict[str, str], message: str) -> None:
    """The error names the variables of a role that are invalid.

    Contradictory variables, quotes and wrong numbers are invalid.
    """
    with pytest.raises(CredentialError) as caught:
        role_in_environment(environ)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "name",
    [
        "TENCENTCLOUD_ASSUME_ROLE_SAML_ASSERTION",
        "TENCENTCLOUD_ASSUME_ROLE_WEB_IDENTITY_TOKEN_FILE",
        "TENCENTCLOUD_MFA_CERTIFICATION_TOKEN_CODE",
        "TENCENTCLOUD_CAM_ROLE_NAME",
    ],
)
def test_variable_of_terraform_is_refused_by_name(name: str) -> None:
    """With these Terraform would sign with other keys, so they are not ignored."""
    refuse_unsupported_variables({**ENVIRONMENT, name: ""}, is_instance=False)
    with pytest.raises(CredentialError, match=f"{name} is set; this program does not support it"):
        refuse_unsupported_variables({**ENVIRONMENT, name: SECRET}, is_instance=False)
