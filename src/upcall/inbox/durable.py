"""What outlasts a power cut: files, the names in directories, and which file systems do not keep that promise."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["existing", "file_system", "make_directory", "network_file_system", "sync_directory", "sync_file"]

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "9p"}
)

_NOT_OURS_TO_SYNC: Final = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.EROFS})
"""The directory may not be read, such as one that somebody else made, or its file system has no such thing."""


def make_directory(directory: Path) -> None:
    """Make a directory, and those around it that are missing, for this user alone.

    Their names are on disk then, where the file system can say so.

    Raises:
        OSError: It cannot be made.
    """
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    # That of a directory that is there too: who made it may have been cut off before its name was on disk.
    for path in {directory.parent, *(path.parent for path in missing)}:
        try:
            sync_directory(path)
        except OSError as error:
            if error.errno not in _NOT_OURS_TO_SYNC:
                raise


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: They may not be.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(descriptor: int) -> None:
    """Make what a file holds durable.

    Raises:
        OSError: It may not be.
    """
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync alone does not reach the platter there
    else:
        os.fdatasync(descriptor)


def existing(path: Path) -> Path:
    """Return a path, or the nearest of the directories around it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def network_file_system(path: Path) -> str | None:
    """Return the type of file system that holds a path, which need not exist, where it is another machine's."""
    kind = file_system(path)
    return kind if kind in _NETWORK else None


def file_system(path: Path) -> str | None:
    """Return the type of file system that holds a path, where the machine says (Linux)."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    resolved = path.resolve()
    best, kind = -1, None
    for line in lines:
        mount, _, rest = line.partition(" - ")
        point = Path(mount.split()[4].replace("\\040", " "))
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest.split()[0]
    return kind
