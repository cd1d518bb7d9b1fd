"""Check one value of a credential, and name what quoting, copying or a template did to it."""

import re
import unicodedata

from orchestrator.cloud.credentials.base import KEY
from orchestrator.errors import CredentialError
from orchestrator.wording import QUOTES, REMOVE_QUOTES

_QUOTES = f"[{QUOTES}]"
_COPY = "Copy it again: an API key from the CAM console, a token from the login that issued it."
_FILL_IN = "Put the key itself there: nothing has replaced the text that stands for it."
_PLACEHOLDERS = (
    r"<.*>",
    r"\[.*\]",
    r"@@\w+@@",
    r"[a-z+-]+://.*",  # a reference to a secret store
    r".*\*{3}.*",
    r"(?i:none|null|nil|undefined)",
)
"""Only what no key can be: a simulated cloud may have keys of any other form."""

_FAULTS = (
    (r"\s+", "is blank", "Set it to the key, or unset it."),
    (r".*\r", "ends with a carriage return", "Save its file with Unix line ends."),
    (r"\n.*|.*\n", "has a line break around it", "Remove the line break."),
    (r"\s.*|.*\s", "has spaces around it", _COPY),
    (rf"{_QUOTES}.*{_QUOTES}", "has quotes around it", REMOVE_QUOTES),
    (rf"{_QUOTES}.*|.*{_QUOTES}", "begins or ends with a quote", REMOVE_QUOTES),
    (
        r"\$(\{.*|\(.*|[A-Za-z_]\w*)|%\w+%|.*\{\{.*\}\}.*|#\{.*\}.*|\(\(.*\)\)",
        "is a variable that was not expanded",
        _FILL_IN,
    ),
)
"""What a value looks like as a whole, what is wrong with it then, and the remedy."""

_KEY_FAULTS = (
    ("|".join(_PLACEHOLDERS), "is a placeholder and not a key", _FILL_IN),
    (
        r"(?i:(export\s+|set\s+)?(TENCENTCLOUD_)?(secret_?(id|key)|(security_)?token)\s*[=:].*)",
        "begins with a name",
        "Remove the name and the sign behind it.",
    ),
    (r".*\s[#;].*", "has a comment behind it", "Put the comment on a line of its own."),
    (
        r"(QUtJR|SUtJR).*",
        "is encoded in base64",
        "Decode it: a Kubernetes secret needs its data encoded once.",
    ),
    (r".*\s.*", "has spaces in it", _COPY),
)
"""The same for keys alone: a role or a profile may have such a name."""


def checked_key(name: str, value: object) -> str | None:
    """Return a SecretId, SecretKey or token, ``None`` if it is missing or empty.

    Args:
        name: how the message names the value.

    Raises:
        CredentialError: the value is not a key; the message never shows it.
    """
    text = checked_name(name, value)
    if text is None:
        return None
    _refuse(name, text, _KEY_FAULTS)
    if not KEY.fullmatch(text):
        raise CredentialError(f"{name} has characters that no key has.", _COPY)
    return text


def checked_name(name: str, value: object) -> str | None:
    """Check and return the name of a role, a profile or the like.

    Args:
        name: how the message names the value.

    Returns:
        The value; ``None`` if it is missing or empty.

    Raises:
        CredentialError: the value is not a name; the message never shows it.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise CredentialError(f"{name} is not text.", "Put it between double quotes.")
    for sign in value:
        if unicodedata.category(sign) == "Cf":
            what = f"U+{ord(sign):04X} {unicodedata.name(sign, '')}".rstrip()
            raise CredentialError(f"{name} has an invisible character in it ({what}).", _COPY)
    _refuse(name, value, _FAULTS)
    if not value.isprintable():
        raise CredentialError(f"{name} has unprintable characters in it.", _COPY)
    return value


def _refuse(name: str, value: str, faults: tuple[tuple[str, str, str], ...]) -> None:
    for pattern, problem, remedy in faults:
        if re.fullmatch(pattern, value, re.DOTALL):
            raise CredentialError(f"{name} {problem}.", remedy)


def is_secret_id(value: str) -> bool:
    """Return whether a value begins as the vendor's SecretIds do."""
    return value.startswith(("AKID", "IKID"))
