"""40 images, 8 % lost answers, and a vendor that differs from its documents in one point or two."""

from pathlib import Path

import pytest

from .side_by_side import run_side_by_side
from .variation_run import Variation, run_variation
from .vendor_variations import SIDE_BY_SIDE, VARIATIONS

pytestmark = pytest.mark.scale


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda one: one.name)
def test_variation_does_no_harm(variation: Variation, tmp_path: Path) -> None:
    """No second export, no false verified, no good export failed, no silence."""
    seen = run_variation(variation, tmp_path)
    assert not seen.harm, (seen.harm, seen.states, seen.sentences)


@pytest.mark.anyio
@pytest.mark.parametrize("variation", SIDE_BY_SIDE, ids=lambda one: one.name)
async def test_two_processes_and_a_kill_do_no_harm(variation: Variation, tmp_path: Path) -> None:
    """The same with two processes on one store, one of them killed and replaced."""
    seen = await run_side_by_side(variation, tmp_path)
    assert not seen.harm, (seen.harm, seen.states, seen.sentences)
