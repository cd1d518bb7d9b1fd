"""People who may only read: auditors, archives and read-only mounts.

Permissions do not bind root, so the commands run without root's right to ignore them, on files that
belong to another user. Mounts are made in a namespace of their own.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.file_systems import file_system, refuse_network_file_system
from orchestrator.store.migrations import HEAD

_NOBODY = 65534
_READER = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown",
    "--inh-caps=-all",
)
"""Run a command as root without the right to ignore permissions: as any other user."""

_NAMESPACE = ("unshare", "--mount", "--propagation", "private", "sh", "-ec")

pytestmark = [
    pytest.mark.field,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed"),
]

Looked = subprocess.CompletedProcess[str]


@pytest.fixture
def path(tmp_path: Path, sqlite_template: Path) -> Path:
    """A closed store, readable for all, in a folder that only its owner may change."""
    (folder := tmp_path / "owned").mkdir()
    path = Path(shutil.copy(sqlite_template, folder / "store.db"))
    give_away(folder, 0o755, 0o444)
    return path


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """A run in progress, whose newest job is only in the log."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("INSERT INTO scopes (profile, region, misses) VALUES ('p', 'r', 0)")
        give_away(path.parent, 0o755, 0o644)
        yield connection


def give_away(folder: Path, mode: int, files_mode: int) -> None:
    """Make a folder and its files belong to another user."""
    for file in folder.iterdir():
        os.chown(file, _NOBODY, _NOBODY)
        file.chmod(files_mode)
    os.chown(folder, _NOBODY, _NOBODY)
    folder.chmod(mode)


def look(path: Path, command: str = "status", *before: str) -> Looked:
    """Run a command as a user who may only read."""
    words = (sys.executable, "-m", "orchestrator", command, "--database-url", str(path))
    return subprocess.run(
        [*_READER, *before, *words], capture_output=True, text=True, check=False, cwd="/"
    )


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the size and content of each file in a folder, except the index.

    The index (``-shm``) may change when a store is read.
    """
    return {
        file.name: (file.stat().st_size, file.read_bytes())
        for file in folder.iterdir()
        if not file.name.endswith("-shm")
    }


def assert_refused(looked: Looked, *words: str) -> None:
    """One sentence with a remedy, exit 2, nothing on stdout."""
    assert (looked.returncode, looked.stdout) == (2, ""), looked.stderr
    assert "Traceback" not in looked.stderr
    for word in words:
        assert word in looked.stderr


@pytest.mark.parametrize("command", ["status", "history"])
def test_archive_of_another_user_is_read(path: Path, command: str) -> None:
    """File 0444 in a folder that cannot be written: nothing is created."""
    before = state_of(path.parent)
    looked = look(path, command)
    assert looked.returncode == 0, looked.stderr
    assert state_of(path.parent) == before


def test_live_store_of_another_user_is_read(path: Path, writer: sqlite3.Connection) -> None:
    """The log of the running process is read; `immutable` would miss it."""
    writer.execute("UPDATE alembic_version SET version_num = '9999'")
    before = state_of(path.parent)
    assert_refused(look(path), "newer version (9999")
    writer.execute("UPDATE alembic_version SET version_num = ?", (HEAD,))
    looked = look(path)
    assert looked.returncode == 0, looked.stderr
    assert state_of(path.parent).keys() == before.keys()


def test_end_of_a_run_of_another_user_is_seen(path: Path) -> None:
    """A run of another user is not reported as active after its process has ended.

    Its lock file cannot be opened.
    """
    path.chmod(0o644)
    image = ("--image", "img-00000001", "--region", "ap-tokyo", "--bucket", "backup-1250000000")
    enqueue = (sys.executable, "-m", "orchestrator", "enqueue", *image)
    subprocess.run([*enqueue, "--database-url", str(path)], check=True, capture_output=True)
    url = f"sqlite+aiosqlite:///{path}"
    words = (sys.executable, "-m", "tests.job_queue.registered_process", url)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        words, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lock = Path(f"{path}.alive-{process.stdout.readline().strip()}")
        give_away(path.parent, 0o711, 0o644)
        lock.chmod(0o600)
        running = look(path)
        process.kill()
    ended = look(path)
    assert lock.exists()
    assert (running.returncode, ended.returncode) == (0, 0), running.stderr + ended.stderr
    assert "No run is active" not in running.stdout
    assert "No run is active" in ended.stdout


def test_log_without_index_is_refused(path: Path, writer: sqlite3.Connection) -> None:
    """A copy with a log is refused if the index cannot be created.

    The message says which files to copy. A stale index is enough to read the copy.
    """
    (folder := path.parent.parent / "copy").mkdir()
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", folder)
    give_away(folder, 0o755, 0o644)
    before = state_of(folder)
    assert_refused(look(folder / path.name), "store.db-wal", "Copy store.db and store.db-wal")
    assert state_of(folder) == before
    # a stale index is enough
    shutil.copy(f"{path}-shm", folder)
    give_away(folder, 0o755, 0o644)
    looked = look(folder / path.name)
    assert looked.returncode == 0, looked.stderr


def test_user_without_permission_is_refused(path: Path, writer: sqlite3.Connection) -> None:
    """The message names the file that cannot be read.

    A file that cannot be seen is not reported as a missing store.
    """
    log = Path(f"{path}-wal")
    log.chmod(0o600)
    assert_refused(look(path), f"{log} cannot be read: Permission denied", "Ask its owner")
    path.chmod(0o600)
    assert_refused(look(path), f"{path} cannot be read: Permission denied")
    path.parent.chmod(0o700)
    assert_refused(look(path), "cannot be read: Permission denied", "enter")
    assert_refused(look(path.parent / "missing.db"), "cannot be read: Permission denied")


def test_writers_are_refused(path: Path) -> None:
    """The commands that write say so, and create nothing."""
    before = state_of(path.parent)
    assert_refused(look(path, "run"), "cannot be opened: Permission denied")
    assert state_of(path.parent) == before


def in_namespace(path: Path, script: str) -> Looked:
    """Run a shell script in a mount namespace of its own.

    In the script, ``look`` runs ``orchestrator status``, and mounts do not affect this machine.
    The test is skipped if mounts are not permitted.
    """
    look = f"{sys.executable} -m orchestrator status --database-url"
    prelude = f'look() {{ {look} "$@"; }}; folder={path.parent}; '
    done = subprocess.run(
        [*_NAMESPACE, prelude + script], capture_output=True, text=True, check=False, cwd="/"
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount can be made here: {done.stderr.strip()}")
    return done


_READ_ONLY = "mount --bind $folder $folder; mount -o remount,bind,ro $folder; "


def test_read_only_mount_is_read(path: Path) -> None:
    """Without a log the file alone is read."""
    done = in_namespace(path, _READ_ONLY + "look $folder/store.db")
    assert done.returncode == 0, done.stderr


def test_read_only_mount_of_a_live_store_is_read(path: Path, writer: sqlite3.Connection) -> None:
    """As a container sees it, to which the folder is given read-only."""
    writer.execute("UPDATE alembic_version SET version_num = '9999'")
    assert_refused(in_namespace(path, _READ_ONLY + "look $folder/store.db"), "newer version (9999")


def test_read_only_mount_with_a_log_alone_is_refused(
    path: Path, writer: sqlite3.Connection
) -> None:
    """The reason is the mount."""
    (folder := path.parent.parent / "copy").mkdir()
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", folder)
    done = in_namespace(folder / path.name, _READ_ONLY + "look $folder/store.db")
    assert_refused(done, "store.db-wal", "Read-only file system", "Copy store.db")


def test_file_that_is_mounted_alone_is_refused(path: Path, writer: sqlite3.Connection) -> None:
    """As with ``docker -v store.db:/data/store.db``: a reader would miss the log."""
    script = "mkdir $folder/d; touch $folder/d/s.db; mount --bind $folder/store.db $folder/d/s.db; "
    run = f"{sys.executable} -m orchestrator run --database-url"
    for command in ("look", run):
        done = in_namespace(path, f"{script} {command} $folder/d/s.db")
        assert_refused(done, "d/s.db is mounted as a single file", "Mount its folder instead.")
        assert [file.name for file in (path.parent / "d").iterdir()] == ["s.db"]
        shutil.rmtree(path.parent / "d")


def test_mounts_are_followed(tmp_path: Path) -> None:
    """Bind mounts, covered mounts and blanks, in the kernel's own list."""
    script = (
        "mkdir -p '/tmp/a b/c'; mount -t tmpfs tmpfs '/tmp/a b'; mkdir '/tmp/a b/c'; "
        "mount -t proc proc '/tmp/a b/c'; cat /proc/self/mountinfo > $folder/inner; "
        "mount -t ramfs ramfs '/tmp/a b'; mkdir '/tmp/a b/c'; "
        "cat /proc/self/mountinfo > $folder/covered; "
        "mount --bind $folder '/tmp/a b/c'; cat /proc/self/mountinfo > $folder/bound"
    )
    (tmp_path / "lists").mkdir()
    script = f"cd {tmp_path}; {script.replace('/tmp/', './')}"
    done = in_namespace(tmp_path / "lists" / "x", script)
    assert done.returncode == 0, done.stderr
    kinds = {}
    for name in ("inner", "covered", "bound"):
        kinds[name] = file_system(tmp_path / "a b" / "c", (tmp_path / "lists" / name).read_text())
    here = file_system(tmp_path, Path("/proc/self/mountinfo").read_text())
    assert kinds == {"inner": "proc", "covered": "ramfs", "bound": here}
    mounts = tmp_path / "nfs"
    mounts.write_text((tmp_path / "lists" / "covered").read_text().replace(" ramfs ", " nfs4 "))
    with pytest.raises(StoreError, match="nfs4"):
        refuse_network_file_system(tmp_path / "a b" / "c" / "x.db", allowed=False, mounts=mounts)
