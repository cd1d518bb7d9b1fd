"""Values that quoting, copying or a template has spoiled are named as what they are."""

import pytest

from orchestrator.cloud.credentials.value_check import checked_key, checked_name
from orchestrator.errors import CredentialError

from .stored import SECRET

VARIABLE = "is a variable that was not expanded"
PLACEHOLDER = "is a placeholder and not a key"
QUOTES = "has quotes around it"


@pytest.mark.parametrize("value", [None, ""])
def test_missing_value_is_none(value: str | None) -> None:
    """An empty value counts as missing."""
    assert checked_key("NAME", value) is None


@pytest.mark.parametrize(
    "value",
    [
        "AKIDz8krbsJ5yKBZQpn74WFkmLPx3abcdefg",
        "Gu5t9xGARNpq86cd98joQYCN3abcdefg",
        "a+/b-c_d=.~!x%20{}",
        "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
        "your-secret-key",
        "xxxxxxxx",
        "$2b$10$abc",
        "$1",
        "secret:1",
        "mysecret=1",
        "c2VjcmV0token=",
        "tokens=3",
    ],
)
def test_key_is_returned(value: str) -> None:
    """Printable ASCII without spaces is a valid key.

    A key of a simulated cloud may look like a name.
    """
    assert checked_key("NAME", value) == value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("  ", "is blank"),
        (f"{SECRET}\r", "ends with a carriage return"),
        (f"{SECRET}\r\n", "has a line break around it"),
        (f"\n{SECRET}", "has a line break around it"),
        (f"{SECRET} ", "has spaces around it"),
        (f"\xa0{SECRET}", "has spaces around it"),
        (f"{SECRET} {SECRET}", "has spaces in it"),
        (f"\ufeff{SECRET}", "has an invisible character in it (U+FEFF ZERO WIDTH NO-BREAK SPACE)"),
        (f"{SECRET}\u200b", "has an invisible character in it (U+200B ZERO WIDTH SPACE)"),
        (f'"{SECRET}"', QUOTES),
        (f"'{SECRET}'", QUOTES),
        (f"\u201c{SECRET}\u201d", QUOTES),
        (f"{SECRET}'", "begins or ends with a quote"),
        (f'"{SECRET}', "begins or ends with a quote"),
        ('"', "begins or ends with a quote"),
        ("${SECRET_ID}", VARIABLE),
        ("$SECRET_ID", VARIABLE),
        ("$(cat key)", VARIABLE),
        ("%SECRET_ID%", VARIABLE),
        ("{{ secret }}", VARIABLE),
        ("${{ secrets.TENCENT_ID }}", VARIABLE),
        ("#{SecretId}#", VARIABLE),
        ("((secret-id))", VARIABLE),
        ("<your key>", PLACEHOLDER),
        ("[secret]", PLACEHOLDER),
        ("AKID****abcd", PLACEHOLDER),
        ("None", PLACEHOLDER),
        ("op://vault/tencent/id", PLACEHOLDER),
        (f"TENCENTCLOUD_SECRET_KEY={SECRET}", "begins with a name"),
        (f"export TENCENTCLOUD_SECRET_ID={SECRET}", "begins with a name"),
        (f"secret_key: {SECRET}", "begins with a name"),
        (f"secretId={SECRET}", "begins with a name"),
        (f"token = {SECRET}", "begins with a name"),
        (f"set TENCENTCLOUD_SECURITY_TOKEN={SECRET}", "begins with a name"),
        (f"{SECRET} # of the night job", "has a comment behind it"),
        (f"{SECRET} ; prod", "has a comment behind it"),
        ("QUtJRHo4a3Jic0o1eUtCWlFwbjc0V0ZrbUxQeDM=", "is encoded in base64"),
        (f"{SECRET}é", "has characters that no key has"),
        (f"{SECRET}\x1b[D", "has unprintable characters in it"),
        (7, "is not text"),
        (["x"], "is not text"),
    ],
)
def test_spoiled_value_is_named_and_not_shown(value: object, problem: str) -> None:
    """The error has the name, the problem and a remedy, but never the value."""
    with pytest.raises(CredentialError) as caught:
        checked_key("NAME", value)
    assert caught.value.message == f"NAME {problem}."
    assert caught.value.remedy
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["my-session", "生产", "night shift", "[prod]"])
def test_name_may_look_like_a_placeholder(name: str) -> None:
    """Roles, sessions and profiles have names that no key has."""
    assert checked_name("NAME", name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [("'night'", QUOTES), ("${ROLE}", VARIABLE), ("night\r", "ends with a carriage return")],
)
def test_spoiled_name_is_refused(name: str, problem: str) -> None:
    """Quotes, variables and line ends are no part of a name either."""
    with pytest.raises(CredentialError, match=problem):
        checked_name("NAME", name)
