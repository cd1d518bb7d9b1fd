"""Pages of a listing, over all limits, delimiters and markers."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.buckets import Buckets, make_object
from orchestrator.simulator.cos_paging import cut_page

KEYS = st.text("ab/ü", min_size=1, max_size=5)


@dataclass(frozen=True)
class Thing:
    """Something with a key."""

    key: str


@given(st.sets(KEYS), st.text("ab/", max_size=2), st.sampled_from(["", "/"]), st.integers(1, 4))
def test_pages_together_equal_one_page(
    keys: set[str], prefix: str, delimiter: str, limit: int
) -> None:
    """For every limit, following the markers gives the same as one large page."""
    ordered = [Thing(key) for key in sorted(keys) if key.startswith(prefix)]
    whole = cut_page(ordered, prefix, delimiter, "", 1000)
    entries: list[Thing] = []
    groups: list[str] = []
    marker = ""
    while True:
        rest = [thing for thing in ordered if thing.key > marker]
        page = cut_page(rest, prefix, delimiter, marker, limit)
        assert len(page.entries) + len(page.groups) <= limit
        entries += page.entries
        groups += page.groups
        if page.last is None:
            break
        marker = page.last if isinstance(page.last, str) else page.last.key
    assert (tuple(entries), tuple(groups)) == (whole.entries, whole.groups)


@given(st.lists(KEYS), st.text("abü", max_size=2), st.text("ab/ü", max_size=3))
def test_bucket_lists_in_byte_order(keys: list[str], prefix: str, marker: str) -> None:
    """A listing has each key with the prefix after the marker, once."""
    buckets = Buckets()
    for key in keys:
        buckets.put("b", "r", make_object(key, 1, 0.0, ""))
    found = [stored.key for stored in buckets.after("b", "r", prefix, marker)]
    wanted = {key for key in keys if key.startswith(prefix) and key > marker}
    assert found == sorted(wanted, key=str.encode)
