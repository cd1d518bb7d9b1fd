"""Large manifests: read piece by piece, in little memory."""

import io
import tracemalloc
from pathlib import Path

import pytest

from orchestrator.manifest.reader import Defaults, read_manifest
from orchestrator.manifest.row_parser import LONGEST_LINE, Row, read_rows

FLAGS = Defaults(region="ap-singapore", bucket="backup-1250000000")


def test_a_hundred_thousand_rows_need_little_memory(tmp_path: Path) -> None:
    """Reading takes less than 700 bytes a row, the requests themselves included."""
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


@pytest.mark.parametrize("form", ["csv", "lines", "array"])
def test_a_long_manifest_is_read_piece_by_piece(form: str) -> None:
    """When the first row is known, hardly anything of the rest has been read."""
    ids = [f"img-{n:08d}" for n in range(100_000)]
    objects = [f'{{"image_id": "{one}"}}' for one in ids]
    text = {
        "csv": "\n".join(["image_id", *ids]),
        "lines": "\n".join(objects),
        "array": f"[{','.join(objects)}]",
    }[form]
    stream = io.BytesIO(text.encode())
    rows = (item for item in read_rows(stream) if isinstance(item, Row))
    assert next(rows).cells == {"image_id": ids[0]}
    # an array on one line is the worst: its first line is read up to the longest one allowed
    assert stream.tell() < (2**17 if form != "array" else LONGEST_LINE + 2**17) < len(text)
    assert [row.cells["image_id"] for row in rows] == ids[1:]
