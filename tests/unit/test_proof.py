"""The account of `upcall prove`: what it calls lost, doubled, balanced; and that a loss is an exit code."""

import json

import pytest

from upcall.cli.main import run
from upcall.cli.proof import command
from upcall.cli.proof.bodies import make, serial_of, wants_device, wants_exact
from upcall.cli.proof.checks import Check, Report
from upcall.cli.proof.disk import Disk
from upcall.cli.proof.ledger import DEAD, DONE, OTHER, Ledger, Observed, reconcile, total
from upcall.cli.proof.sender import ACKNOWLEDGED, SENT, Latencies

COUNT = 20
GOOD = Ledger(sent=3, acknowledged=3, stored=3, handled=2, dead=1)


def observed(**changes):
    """Return what is seen where all is well, with some serial numbers' values changed."""
    seen = {
        "sent": bytearray([ACKNOWLEDGED]) * COUNT,
        "stored": bytearray([1]) * COUNT,
        "states": bytearray([DONE]) * COUNT,
        "notes": bytearray([1]) * COUNT,
        "devices": bytearray(map(wants_device, range(COUNT))),
        "effects": bytearray(map(wants_exact, range(COUNT))),
    }
    more = {}
    for name, change in changes.items():
        if name in seen:
            for serial, value in change.items():
                seen[name][serial] = value
        else:
            more[name] = change
    return Observed(**seen, **more)


def report(ledger, *checks):
    return Report(
        ledger=ledger,
        checks=checks,
        disk=Disk("/somewhere", "ext4", 0.5),
        refused={},
        kills={"body": 3},
        spooled=7,
        restarts=3,
        p50_ms=1.0,
        p99_ms=2.0,
        p999_ms=3.0,
        seconds=4.0,
    )


def test_all_is_well():
    """Where each callback is stored once and handled, the account balances and says so in its line."""
    ledger = reconcile(observed())
    assert ledger.holds
    assert (ledger.sent, ledger.acknowledged, ledger.stored, ledger.handled) == (COUNT,) * 4
    assert "acknowledged 20 = stored 20 = handled 20 + dead 0" in str(ledger)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"stored": {3: 0}, "states": {3: 0}}, "acknowledged and not stored"),
        ({"states": {3: OTHER}}, "neither handled nor dead"),
        ({"notes": {3: 0}}, "its handler never ran"),
        ({"devices": {4: 0}}, "the handler of its device never ran"),
        ({"effects": {0: 0}}, "without the effect of its transaction"),
    ],
)
def test_a_loss(change, what):
    """Whatever is lost on the way, the account names it with its serial number, and does not hold."""
    ledger = reconcile(observed(**change))
    assert (ledger.lost, ledger.doubled, ledger.holds) == (1, 0, False)
    assert what in ledger.faults[0]
    assert f"number {next(iter(next(iter(change.values()))))}" in ledger.faults[0]


@pytest.mark.parametrize("change", [{"stored": {3: 2}}, {"effects": {0: 2}}])
def test_a_double(change):
    """A callback that is stored twice, or a transaction that took effect twice, is called doubled."""
    ledger = reconcile(observed(**change))
    assert (ledger.lost, ledger.doubled, ledger.holds) == (0, 1, False)


def test_what_may_be():
    """A dead letter need not have run, and a plain handler may run twice: neither is a fault."""
    ledger = reconcile(observed(states={4: DEAD, 0: DEAD}, devices={4: 0}, effects={0: 0}, notes={5: 3}))
    assert ledger.holds
    assert (ledger.dead, ledger.handled, ledger.redone) == (2, COUNT - 2, 2)


def test_what_was_sent_and_never_answered():
    """Nobody acknowledged it: then it is no loss, but what was kept all the same must be answered in the end."""
    ledger = reconcile(observed(sent={3: SENT}, stored={3: 0}, states={3: 0}, notes={3: 0}))
    assert ledger.holds
    assert ledger.acknowledged == COUNT - 1
    assert not reconcile(observed(sent={3: SENT})).holds


def test_junk_and_strangers():
    """Garbage that was acknowledged must be kept as it came, and rows of bytes that nobody sent are a fault."""
    assert reconcile(observed(junk_acknowledged=2, junk_kept=2)).holds
    assert reconcile(observed(junk_acknowledged=2, junk_kept=1)).lost == 1
    assert not reconcile(observed(strangers=1)).holds


def test_several_stores():
    """The accounts of several stores add up, their faults too."""
    both = total([GOOD, reconcile(observed(notes={3: 0}))])
    assert (both.acknowledged, both.lost, len(both.faults), both.holds) == (COUNT + 3, 1, 1, False)


def test_bodies():
    """A body's serial number is read back only from exactly the bytes that were sent."""
    for serial in (0, 3, 4, 10, 999, 123_456_789):
        assert serial_of(make(serial)) == serial
        assert serial_of(make(serial) + b" ") is None
    assert len({make(serial) for serial in range(1000)}) == 1000


def test_latencies():
    """The parts of the acknowledgements are taken from all of them, and of none they are 0."""
    took = Latencies([second / 1000 for second in range(1000)])
    assert (took.milliseconds(0.5), took.milliseconds(0.99), took.milliseconds(0.999)) == (500.0, 990.0, 999.0)
    assert Latencies([]).milliseconds(0.99) == 0.0


FAILED = Check("store locked", "failed", "12 callbacks were refused with 503", 1.0)
SKIPPED = Check("a full disk", "skipped", "only root may mount a small disk", 0.0)


@pytest.mark.parametrize(
    ("found", "code", "last"),
    [
        (report(GOOD, SKIPPED), 0, "PROVED"),
        (report(reconcile(observed(notes={3: 0}))), 1, "NOT PROVED: 1 done, and its handler never ran: number 3"),
        (report(GOOD, FAILED), 1, "NOT PROVED: store locked: 12 callbacks were refused with 503"),
        (report(Ledger(acknowledged=3, stored=2, handled=2)), 1, "NOT PROVED: the account does not balance"),
        (report(Ledger()), 1, "NOT PROVED: nothing was acknowledged"),
    ],
)
def test_the_command_ends_with_the_verdict(found, code, last, monkeypatch, capsys):
    """A loss, a doubled effect, a failed check or an account that does not balance is exit code 1 and the last line."""
    monkeypatch.setattr(command, "prove_in", lambda *_, **__: found)
    assert run(["prove"]) == code
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == last
    assert run(["prove", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["proved"] is (code == 0)


def test_effects_are_called_single_only_where_they_are():
    """A report that counts a double does not say beside it that each effect happened once."""
    assert any(", each once" in line for line in report(GOOD).lines())
    twice = report(reconcile(observed(effects={0: 2})))
    assert not any("each once" in line for line in twice.lines())


def test_what_was_skipped_is_said(monkeypatch, capsys):
    """A step that could not be taken here is named with its reason, to a person and in JSON."""
    monkeypatch.setattr(command, "prove_in", lambda *_, **__: report(GOOD, SKIPPED))
    run(["prove"])
    assert "skipped: a full disk (only root may mount a small disk)" in capsys.readouterr().out
    run(["prove", "--json"])
    assert json.loads(capsys.readouterr().out)["skipped"] == ["a full disk (only root may mount a small disk)"]
