"""Which file system a file is on, and which are refused."""

import logging
import os
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.file_systems import (
    file_system,
    is_network,
    refuse_file_mount,
    refuse_network_file_system,
)

ROOT = "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
AUTOFS = "30 20 0:40 / /srv/share rw - autofs systemd-1 rw,fd=29,direct"
NFS = "31 30 0:41 / /srv/share rw,relatime shared:7 master:2 - nfs4 nas:/x rw,vers=4.2"


def found(path: str, *lines: str) -> str | None:
    return file_system(Path(path), "\n".join([ROOT, *lines, ""]))


@pytest.mark.parametrize(
    ("path", "lines", "kind"),
    [
        ("/srv/share/deep", [AUTOFS, NFS], "nfs4"),
        ("/srv/share", [AUTOFS, NFS], "nfs4"),
        ("/srv/shared", [AUTOFS, NFS], "ext4"),
        ("/srv/share", [AUTOFS], "autofs"),
        # older kernels list both with the same parent
        ("/srv/share", [AUTOFS, NFS.replace("31 30", "31 20")], "nfs4"),
        # a mount over a parent folder hides what was mounted below it
        ("/srv/share", [AUTOFS, NFS, "32 20 8:2 / /srv rw - xfs /dev/sdb rw"], "xfs"),
        # a file system that was moved is listed before the one that it is on
        (
            "/run/db",
            ["40 41 0:9 / /run/db rw - tmpfs t rw", "41 20 0:8 / /run rw - nfs n rw"],
            "tmpfs",
        ),
        ("/my share/x", [r"30 20 0:9 / /my\040share rw - cifs //nas/x rw"], "cifs"),
        ("/a\tb\nc\\d", [r"30 20 0:9 / /a\011b\012c\134d rw - ceph x rw"], "ceph"),
        ("/data/x", ["30 20 0:9 /exports/x /data rw - overlay overlay rw"], "overlay"),
    ],
)
def test_the_mount_that_the_path_leads_to_decides(path: str, lines: list[str], kind: str) -> None:
    """Mounts are followed from the root, as the kernel follows a path."""
    assert found(path, *lines) == kind


def test_the_root_of_a_container_need_not_be_listed() -> None:
    """In a chroot the list has only what is mounted below it."""
    assert file_system(Path("/data/x"), "30 20 0:9 / /data rw - nfs nas:/x rw\n") == "nfs"
    assert file_system(Path("/other"), "30 20 0:9 / /data rw - nfs nas:/x rw\n") is None


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "9p",
        "virtiofs",
        "lustre",
        "ceph",
        "ocfs2",
        "gpfs",
        "beegfs",
        "fuse",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.cosfs",
        "fuse.juicefs",
        "autofs",
    ],
)
def test_network_file_system_is_recognised(kind: str) -> None:
    """Network, cluster and shared-folder file systems are recognised.

    FUSE file systems count as well, except for a few types.
    """
    assert is_network(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "ext4",
        "xfs",
        "btrfs",
        "zfs",
        "overlay",
        "tmpfs",
        "fuseblk",
        "fuse.ext4",
        "fuse.fuse-overlayfs",
        "ecryptfs",
        "nfsd",
    ],
)
def test_local_file_system_is_accepted(kind: str) -> None:
    """Block devices, memory, and what is stacked on a local folder."""
    assert not is_network(kind)


def test_network_file_system_is_refused_unless_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A network file system is refused; if it is allowed, a warning is logged.

    The error names the type and the setting that overrides it.
    """
    mounts = tmp_path / "mountinfo"
    mounts.write_bytes(os.fsencode(f"{ROOT}\n30 20 0:9 / {tmp_path} rw - fuse.sshfs me@nas:/ rw\n"))
    path = tmp_path / "store.db"
    with pytest.raises(StoreError, match=r"is on a fuse\.sshfs file system") as caught:
        refuse_network_file_system(path, allowed=False, mounts=mounts)
    assert "ORCHESTRATOR_ALLOW_NETWORK_STORE=true" in caught.value.remedy
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        refuse_network_file_system(path, allowed=True, mounts=mounts)
    assert "Warning: The database" in caplog.text
    mounts.write_text(f"{ROOT}\n")
    refuse_network_file_system(path, allowed=False, mounts=mounts)


def test_file_that_is_mounted_alone_is_refused(tmp_path: Path) -> None:
    """A file that is itself a mount point is refused, also through a link.

    Only a mount of the file itself counts, and only if no other mount covers it.
    """
    mounts, path = tmp_path / "mountinfo", tmp_path / "store.db"
    of_file = f"30 20 8:1 /home/store.db {path} rw - ext4 /dev/sda1 rw"
    link = tmp_path / "link.db"
    link.symlink_to(path)
    mounts.write_text(f"{ROOT}\n{of_file}\n")
    for name in (path, link):
        with pytest.raises(StoreError, match=r"mounted as a single file") as caught:
            refuse_file_mount(name, mounts=mounts)
        assert caught.value.remedy == "Mount its folder instead."
    for other in (
        of_file.replace(str(path), str(tmp_path)),
        of_file.replace(str(path), f"{path}x"),
        f"{of_file}\n31 20 8:2 / {tmp_path} rw - xfs /dev/sdb rw",
    ):
        mounts.write_text(f"{ROOT}\n{other}\n")
        refuse_file_mount(path, mounts=mounts)


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="there is no mountinfo here")
def test_the_mounts_of_this_machine_are_read() -> None:
    """The kernel's own list has the types of /proc and /sys."""
    listed = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
    assert file_system(Path("/proc/self"), listed) == "proc"
    refuse_network_file_system(Path("/proc/x"), allowed=False)
