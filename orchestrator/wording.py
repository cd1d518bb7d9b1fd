"""Words and sentences that messages of several packages share."""

QUOTES = "\"'`\u2018\u2019\u201c\u201d\u201e\xab\xbb"
"""Quotation marks, also those that a word processor writes."""

REMOVE_QUOTES = (
    "Remove them: some tools, such as docker run --env-file, keep quotes as a part of the value."
)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 job`` or ``2 jobs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def has_quotes(text: str) -> bool:
    """Return whether there are quotes around a text."""
    return len(text) > 1 and text[0] in QUOTES and text[-1] in QUOTES


def how_to_install(extra: str) -> str:
    """Return how to install this program again, with an extra of pyproject.toml."""
    return f"In the folder of its source, run: pipx install --force '.[{extra}]'"
