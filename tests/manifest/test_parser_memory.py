"""Memory that reading a large manifest takes."""

import io
import tracemalloc
from pathlib import Path

import pytest

from orchestrator.errors import ManifestError
from orchestrator.manifest.request_reader import read_manifest

FLAGS = {"region": "ap-singapore", "bucket": "backup-1250000000"}


def test_memory_for_a_hundred_thousand_rows(tmp_path: Path) -> None:
    """Reading takes less than 700 bytes a row, including the requests."""
    path = tmp_path / "manifest.csv"
    rows = (f"img-{n:08d},ap-tokyo,backup-1250000000,night/x\n" for n in range(100_000))
    with path.open("w") as file:
        file.write("image_id,region,bucket,prefix\n")
        file.writelines(rows)
    tracemalloc.start()
    try:
        with path.open("rb") as stream:
            read = read_manifest(stream, "manifest", {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(read.requests) == 100_000
    assert peak < 70_000_000


def test_rows_are_read_one_at_a_time() -> None:
    """After a row that ends the reading, nearly all of the stream is still unread."""
    text = 'image_id\n"img-aaaa\n"-bbbb\n'  # other rows may be within the quotes
    text += "".join(f"img-{n:08d}\n" for n in range(100_000))
    stream = io.BytesIO(text.encode())
    with pytest.raises(ManifestError) as caught:
        read_manifest(stream, "manifest", FLAGS, skip_invalid=True)
    assert len(caught.value.faults) == 1
    assert stream.tell() < 2**17 < len(text)


@pytest.mark.parametrize("row", ["img-{:08d}\n", '{{"image_id": "img-{:08d}"}}\n'])
def test_lists_and_json_lines_are_not_held_in_memory(row: str) -> None:
    """Reading takes less memory than the file and the requests of a manifest of CSV."""
    stream = io.BytesIO("".join(row.format(n) for n in range(100_000)).encode())
    tracemalloc.start()
    try:
        read = read_manifest(stream, "manifest", FLAGS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(read.requests) == 100_000
    assert peak < 70_000_000
