"""Who holds a lease, or keeps a heartbeat: a process of this machine that can be asked whether it still lives."""

from __future__ import annotations

import os
import platform
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["dead_owners", "new_owner"]


def new_owner() -> str:
    """Return a name that nothing else has, of this process or another: machine, process and a random end."""
    return f"{_place()} {os.getpid()} {secrets.token_hex(4)}"


def dead_owners(owners: Sequence[str]) -> list[str]:
    """Return the owners whose process was of this machine and is gone.

    Their leases need not run out first. An owner of another machine, or whose process number lives on, is left alone.
    """
    return [owner for owner in owners if _is_gone(owner)]


def _is_gone(owner: str) -> bool:
    place, _, rest = owner.rpartition(" ")[0].rpartition(" ")
    if place != _place() or not rest.isdigit() or int(rest) == os.getpid():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _place() -> str:
    """Name the space in which a process number means something: the machine, its boot, its container."""
    parts = [platform.node() or "?"]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text(encoding="ascii").strip())
        except OSError:
            continue
    return "/".join(parts).replace(" ", "_")
