"""A server with an old locale: ISO-8859-1, as on old machines, and GBK, as on Chinese ones.

The locales are built for the test; no root is needed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.field

LOCALES = {"en_US": "ISO-8859-1", "zh_CN": "GBK", "ja_JP": "EUC-JP"}


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with these locales, for LOCPATH."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    for name, charmap in LOCALES.items():
        target = folder / f"{name}.{charmap}"
        built = subprocess.run(
            ["localedef", "-f", charmap, "-i", name, target],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not (target / "LC_CTYPE").exists():
            pytest.skip(f"the locale {target.name} cannot be built ({built.stderr.strip()})")
    return folder


@pytest.mark.parametrize("name", [f"{name}.{charmap}" for name, charmap in LOCALES.items()])
def test_commands_in_an_old_locale(locales: Path, tmp_path: Path, name: str) -> None:
    """Data is UTF-8, text is of the locale, and what it does not have is escaped."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "LOCPATH": str(locales),
        "LC_ALL": name,
    }
    encoding = name.partition(".")[2]

    def run(*words: str, stdin: bytes = b"") -> bytes:
        ended = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            env=environ, input=stdin, capture_output=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert b"Traceback" not in ended.stderr
        return ended.stdout

    rows = "image_id,region,bucket,prefix\nimg-1a2b3c4d,ap-singapore,b-1250000000,夜ü/\n"
    assert run("db", "upgrade")
    added = json.loads(run("enqueue", "-", "--json", "--batch", "b", stdin=rows.encode()))
    assert added["added"] == 1
    assert json.loads(run("history", "--json").decode("utf-8"))["prefix"] == "夜ü/"
    assert "夜ü/" in run("history", "--csv").decode("utf-8")
    for words in (("show", "1"), ("status",), ("history",), ("cancel", "--all"), ("--help",)):
        run(*words).decode(encoding)
