"""Where a proof lies, and that nothing of it is left behind."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.cli.processes import signals_interrupt
from upcall.cli.proof.disk import default_directory, look_at
from upcall.cli.proof.prover import prove_here
from upcall.errors import SettingsError, UpcallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.cli.proof.checks import Report
    from upcall.cli.proof.prover import Plan

__all__ = ["prove_in"]

_PREFIX: Final = "upcall-prove-"


def prove_in(where: Path | None, plan: Plan, *, keep: bool, say: Callable[[str], None]) -> Report:
    """Prove in a new directory, and remove it where all is well and it is not to be kept.

    Args:
        where: Around it; None for the default.
        plan: How much is tried.
        keep: Keep it.
        say: Shows a line of progress.

    Raises:
        SettingsError: There is no such directory, or it is no disk.
        UpcallError: The proof could not be carried out.
    """
    around = where or default_directory()
    with signals_interrupt():
        try:
            disk = look_at(around)
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=around))
        except OSError as error:
            raise SettingsError(
                f"{around} cannot be written to: {error.strerror}.", hint="Name a directory of yours with --dir."
            ) from None
        is_kept = keep
        try:
            say(f"in {directory}, on {disk.file_system}: one fsync takes {disk.fsync_ms:.2f} ms")
            report = prove_here(directory, disk, plan, say)
            is_kept = keep or not report.proved
        except UpcallError:
            is_kept = True
            say(f"the data and the logs lie in {directory}")
            raise
        finally:
            if not is_kept:
                shutil.rmtree(directory, ignore_errors=True)
    return msgspec.structs.replace(report, directory=str(directory) if is_kept else None)
