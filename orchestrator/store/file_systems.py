"""Find how a file is mounted, and refuse what SQLite cannot work with."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import StoreError

_log = logging.getLogger("orchestrator")

_NETWORK = frozenset(
    # as systemd (fstype_is_network) and coreutils (stat, df --local) know them
    {"afs", "kafs", "acfs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs", "gfs2"}
    | {"glusterfs", "gpfs", "ibrix", "lustre", "ncp", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs"}
    | {"panfs", "pvfs2", "smb", "smb2", "smb3", "smbfs", "snfs", "sshfs", "wekafs"}
    # folders that a virtual machine shares with its host
    | {"9p", "drvfs", "fakeowner", "hgfs", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"}
    # not mounted yet: what will appear there is not known
    | {"autofs"}
)
"""Types in the kernel's list of mounts that may be shared by several machines."""

_LOCAL_FUSE = frozenset({"fuse.ext4", "fuse.fuse-overlayfs", "fuse.ntfs-3g"})
"""FUSE file systems on this machine's own disks; ``fuse`` and all other ``fuse.*`` count as
network file systems, as in coreutils: most are (sshfs, s3fs, rclone, cosfs, davfs2), and what the
others do with locks and shared memory is up to each. ``fuseblk`` has a block device below it."""

_MOUNTS = Path("/proc/self/mountinfo")
"""The kernel's list of mounts; other systems, such as macOS, have none, and nothing is checked."""

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of /proc/self/mountinfo."""

    number: int
    parent: int
    point: Path
    kind: str


def refuse_network_file_system(path: Path, *, allowed: bool, mounts: Path = _MOUNTS) -> None:
    """Refuse a network file system: SQLite's locks are not reliable there.

    Args:
        path: of the database; its folder must exist.
        allowed: only log a warning.
        mounts: the kernel's list of mounts.

    Raises:
        StoreError: the file is on a network or shared-folder file system.
    """
    if not mounts.exists():
        return
    folder = Path(os.path.realpath(path)).parent
    # the name within the folder lets an automounter mount it before the list is read
    with suppress(OSError):
        os.stat(f"{folder}/.")  # noqa: PTH116 - pathlib removes the dot
    kind = file_system(folder, os.fsdecode(mounts.read_bytes()))
    if kind is None or not is_network(kind):
        return
    message = f"The database {path} is on a {kind} file system, where SQLite's locks do not work"
    if not allowed:
        raise StoreError(
            f"{message}.",
            "Use a local disk, or PostgreSQL if several machines work together. If only this "
            "machine ever uses the file, ORCHESTRATOR_ALLOW_NETWORK_STORE=true overrides this.",
        )
    _log.warning(
        "Warning: %s. Two processes that write to it can damage it, or export an image twice "
        "(allow_network_store).",
        message,
    )


def refuse_file_mount(path: Path, *, mounts: Path = _MOUNTS) -> None:
    """Refuse a file that is mounted alone, without its write-ahead log.

    A container would keep its log to itself and lose it, and would not see that of the host.

    Args:
        path: of the database; it may be missing.
        mounts: the kernel's list of mounts.

    Raises:
        StoreError: the file itself is a mount point.
    """
    if not mounts.exists():
        return
    file = Path(os.path.realpath(path))
    mount = _mount_of(file, os.fsdecode(mounts.read_bytes()))
    if mount is not None and mount.point == file:
        raise StoreError(
            f"The database {path} is mounted as a single file, without its write-ahead log.",
            "Mount its folder instead.",
        )


def is_network(kind: str) -> bool:
    """Return whether a type of file system may be shared by several machines."""
    is_fuse = kind == "fuse" or kind.startswith("fuse.")
    return kind in _NETWORK or (is_fuse and kind not in _LOCAL_FUSE)


def file_system(folder: Path, mounts: str) -> str | None:
    """Return the type of a folder's file system; ``None`` if it is not listed.

    Args:
        folder: an absolute path without symbolic links.
        mounts: content of /proc/self/mountinfo.
    """
    mount = _mount_of(folder, mounts)
    return None if mount is None else mount.kind


def _mount_of(path: Path, mounts: str) -> Mount | None:
    """Return the mount that a path leads to; ``None`` if it is not listed.

    The path is followed from the root, as the kernel does: of the mounts on a file system, the
    nearest point on the way is entered first. So a mount that a later one covers does not count.
    """
    listed = list(_parse(mounts))
    numbers = {mount.number for mount in listed}
    # the root of a container or chroot may be on a mount that is not listed
    ahead = [mount for mount in listed if mount.parent not in numbers - {mount.number}]
    current = None
    while entered := [mount for mount in ahead if path.is_relative_to(mount.point)]:
        nearest = min(len(mount.point.parts) for mount in entered)
        # of several mounts at one point the last covers the others
        current = [mount for mount in entered if len(mount.point.parts) == nearest][-1]
        ahead = [mount for mount in listed if mount.parent == current.number != mount.number]
    return current


def _parse(mounts: str) -> Iterator[Mount]:
    for line in mounts.split("\n"):
        if line:
            words = line.split(" ")
            # optional fields end with a hyphen (source: proc_pid_mountinfo(5))
            kind = words[words.index("-", 6) + 1]
            # blanks, tabs, line ends and backslashes are escaped as octal numbers
            point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), words[4])
            yield Mount(int(words[0]), int(words[1]), Path(point), kind)
