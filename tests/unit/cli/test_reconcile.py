"""What `upcall reconcile` says of a result, and what it exits with."""

import json

import pytest

from upcall.cli import reconcile as command
from upcall.cli.calling import interruptible
from upcall.registration import Contradiction, MissingReport, Reconciled, ReconcileProgress, SilentDevice
from upcall.thingspace import parse_time

ACCOUNT = "0000123456-00001"
IMEI = "990013907835573"
NOW = parse_time("2026-11-23T12:00:00Z").micros
NOTHING = Reconciled(account=ACCOUNT, since=NOW - 1, until=NOW)


def result(**members):
    return Reconciled(account=ACCOUNT, since=NOW - 1, until=NOW, **members)


@pytest.mark.parametrize(
    ("results", "dry_run", "code"),
    [
        ([NOTHING], False, 0),
        ([NOTHING], True, 0),
        ([result(differed=1)], False, 0),
        ([result(differed=1)], True, 1),
        ([result(campaigns_differed=1)], True, 1),
        ([result(differed=1), result(errors=("no",))], True, 4),
        ([result(errors=("no",)), NOTHING], False, 4),
        ([], False, 0),
    ],
)
def test_what_it_exits_with(results, dry_run, code):
    """Filling a gap is no failure; what could not be read is, and a dry run that found something says so."""
    assert command._code(results, dry_run=dry_run) == code


def test_each_thing_is_named_and_no_device_whole(capsys):
    """A person sees what is silent, missing and contradicting, by the devices' last digits, and how many more."""
    command._print(
        [
            result(
                resumed_from=NOW,
                campaigns=2,
                devices=9,
                differed=3,
                campaigns_differed=1,
                silent_campaigns=("c-1",),
                silent_devices=tuple(SilentDevice("c-1", f"{IMEI[:-1]}{n}", "UpgradePending", None) for n in range(7)),
                missing=(MissingReport("c-2", "", None), MissingReport("c-1", IMEI, "Accepted")),
                contradictions=(Contradiction("c-1", IMEI, "UpgradeSuccess", "UpgradeFailed"),),
                not_recoverable=("Some.",),
                remarks=("Other.",),
            )
        ],
        dry_run=True,
    )
    out = capsys.readouterr().out
    assert IMEI[:-4] not in out
    assert [line.removeprefix(f"{ACCOUNT}  ") for line in out.splitlines()[2:]] == [
        "Went on with the run that began at 2026-11-23T12:00:00.000000Z.",
        "1 campaign stood elsewhere than callbacks had told.",
        "No callback ever named: campaign c-1.",
        "Silent: "
        + ", ".join(f"…557{n} of campaign c-1 (UpgradePending)" for n in range(5))
        + " and 2 more, which --json names.",
        "Callbacks told of it, and the reports do not hold it: campaign c-2 (-), …5573 of campaign c-1 (Accepted).",
        "Final by callbacks, and not by the reports: …5573 of campaign c-1 (UpgradeSuccess, reported UpgradeFailed).",
        "Not recoverable: Some.",
        "Other.",
    ]
    assert "WOULD DIFFER" in out


def test_a_program_gets_all_of_it():
    """JSON has every device whole, and times as texts."""
    silent = (SilentDevice("c-1", IMEI, "UpgradePending", NOW), SilentDevice("c-1", IMEI, "Accepted", None))
    document = json.loads(json.dumps(command._document(result(silent_devices=silent), dry_run=False)))
    assert list(document)[:2] == ["account", "dry_run"]
    assert (document["until"], document["resumed_from"]) == ("2026-11-23T12:00:00.000000Z", None)
    assert document["silent_devices"] == [
        {
            "campaign_id": "c-1",
            "device_id": IMEI,
            "status": "UpgradePending",
            "last_at": "2026-11-23T12:00:00.000000Z",
        },
        {"campaign_id": "c-1", "device_id": IMEI, "status": "Accepted", "last_at": None},
    ]


def test_what_could_not_be_read_is_said_on_stderr(capsys):
    """The error with its account, and that the same command goes on."""
    command._complain([result(errors=("no",), finished=False), NOTHING])
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"upcall: {ACCOUNT}: no"
    assert "goes on from there" in said[1]
    assert len(said) == 2


def test_an_interruption_says_how_to_go_on(capsys):
    """Whoever presses Ctrl-C learns that nothing is lost."""
    with pytest.raises(KeyboardInterrupt), interruptible("The same command goes on from there."):
        raise KeyboardInterrupt
    assert "The same command goes on from there" in capsys.readouterr().err


def test_progress_shows_on_a_terminal_only(capsys, monkeypatch):
    """In a pipe there is no bar; on a terminal it counts devices, of how many the provider says there are."""
    with command._bar() as show:
        assert show is None
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with command._bar() as show:
        show(ReconcileProgress(account=ACCOUNT))
        show(ReconcileProgress(account=ACCOUNT, campaign_id="c", campaigns=3, campaigns_done=1, devices=5, total=20))
    said = capsys.readouterr().err
    assert "campaign 2 of 3" in said
    assert "5/20" in said
