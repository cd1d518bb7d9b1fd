"""Memory that reading a large manifest takes."""

import io
import tracemalloc
from pathlib import Path

import pytest

from orchestrator.manifest.file_parser import Row, read_rows
from orchestrator.manifest.request_reader import Defaults, read_manifest

FLAGS = Defaults(region="ap-singapore", bucket="backup-1250000000")


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
            read = read_manifest(stream, "manifest", Defaults())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(read.requests) == 100_000
    assert peak < 70_000_000


@pytest.mark.parametrize("form", ["csv", "json lines"])
def test_rows_are_read_one_at_a_time(form: str) -> None:
    """When the first row is parsed, nearly all of the stream is still unread."""
    ids = [f"img-{n:08d}" for n in range(100_000)]
    lines = ["image_id", *ids] if form == "csv" else [f'{{"image_id": "{one}"}}' for one in ids]
    text = "\n".join(lines)
    stream = io.BytesIO(text.encode())
    rows = (item for item in read_rows(stream) if isinstance(item, Row))
    assert next(rows).cells == {"image_id": ids[0]}
    assert stream.tell() < 2**17 < len(text)
    assert [row.cells["image_id"] for row in rows] == ids[1:]
