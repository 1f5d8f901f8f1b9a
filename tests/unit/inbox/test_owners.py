"""Who holds a lease, and whether that process still lives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from upcall.inbox import owners
from upcall.inbox.owners import dead_owners, new_owner


def of_process(number):
    place, _, end = new_owner().rsplit(" ", 2)
    return f"{place} {number} {end}"


@pytest.fixture
def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_names_are_never_the_same():
    """Two workers of one process have two names."""
    assert new_owner() != new_owner()


def test_a_process_that_is_gone(gone):
    """The leases of a process of this machine that has ended need not run out."""
    name = of_process(gone)
    assert dead_owners([new_owner(), name]) == [name]


def test_processes_that_live():
    """A process that lives keeps its leases: this one, and one that this user may not signal."""
    assert dead_owners([new_owner(), of_process(os.getppid()), of_process(1)]) == []


def test_a_process_that_may_not_be_asked_about(monkeypatch):
    """Where the system does not say whether a process lives, it is taken to live."""

    def refuse(number, signal):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert dead_owners([of_process(12345)]) == []


@pytest.mark.parametrize("place", ["another-host", "another-host/boot/pid:[1]"])
def test_other_machines(gone, place):
    """A process number means nothing on another machine, in another boot or in another container."""
    assert dead_owners([f"{place} {gone} 00000000"]) == []


def test_another_boot_of_this_machine(gone, monkeypatch):
    """After a restart of the machine old process numbers are not compared with new ones."""
    name = of_process(gone)
    monkeypatch.setattr(owners, "_place", lambda: "this-host/another-boot")
    assert dead_owners([name]) == []


@pytest.mark.parametrize(
    "name", ["", " ", "x", "a b", "a b c d", "{place} -1 x", "{place} x y", f"{{place}} {10**30} x"]
)
def test_names_that_nobody_gave(name):
    """A lease under a name of another form is left to run out."""
    assert dead_owners([name.replace("{place}", owners._place())]) == []


def test_a_place_without_proc(monkeypatch):
    """A machine without /proc still names itself, in one word."""
    monkeypatch.setattr(owners.Path, "is_symlink", lambda self: False)

    def missing(self, **options):
        raise FileNotFoundError

    monkeypatch.setattr(owners.Path, "read_text", missing)
    monkeypatch.setattr(owners.platform, "node", lambda: "my host")
    assert owners._place() == "my_host"
