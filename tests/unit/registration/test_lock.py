"""One writer at a time."""

import os
import subprocess
import sys

import pytest

from upcall.errors import StartError
from upcall.registration import reconcile_lock, registration_lock


def test_a_second_writer_waits_and_then_says_who_holds_it(tmp_path):
    """Another writer is told which command of whom it waits for, and what to do."""
    waited = []
    with (
        registration_lock(tmp_path, "apply"),
        pytest.raises(StartError, match=rf"upcall apply by .*@.*, process {os.getpid()} holds .*Wait until it is done"),
        registration_lock(tmp_path, "guard", wait_seconds=1.0, sleep=waited.append),
    ):
        pass
    assert sum(waited) == pytest.approx(1.0)


def test_a_reconciliation_keeps_out_another_one_and_no_writer(tmp_path):
    """Two that read the same reports would mistake each other's notes; what is registered is another matter."""
    with (
        reconcile_lock(tmp_path, "reconcile"),
        registration_lock(tmp_path, "apply", wait_seconds=0.0),
        pytest.raises(StartError, match=r"Another reconciliation is under way: upcall reconcile by"),
        reconcile_lock(tmp_path, "guard", wait_seconds=0.0),
    ):
        pass


def test_who_waits_gets_it_when_it_is_free(tmp_path):
    """The lock is taken as soon as its holder lets go, within the time that one waits."""
    first = registration_lock(tmp_path, "apply")
    first.__enter__()
    with registration_lock(tmp_path, "guard", sleep=lambda _: first.__exit__(None, None, None)):
        pass


def test_it_is_free_when_its_holder_died(tmp_path):
    """A process that is killed at a write locks nobody out."""
    code = (
        "import os, pathlib, sys; from upcall.registration import registration_lock\n"
        "with registration_lock(pathlib.Path(sys.argv[1]), 'apply'): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    with registration_lock(tmp_path, "guard", wait_seconds=0.0):
        pass


def test_the_directory_is_made_for_its_owner_only(tmp_path):
    """The lock lies where the rest of the state does, and nobody else reads it."""
    directory = tmp_path / "state"
    with registration_lock(directory, "apply"):
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "registration.lock").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_cannot_be_is_an_error_of_start(tmp_path):
    """Where there can be no lock nothing is written, and it is said which variable helps."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="UPCALL_STATE_DIR"), registration_lock(tmp_path / "file", "apply"):
        pass
