"""Words and sentences that messages of several packages share."""


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 job`` or ``2 jobs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
