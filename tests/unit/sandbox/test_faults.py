"""What goes wrong on purpose: rates, accounts, scripts and files, and that a seed decides."""

from random import Random

import pytest

from upcall.errors import SettingsError
from upcall.sandbox.faults import API_FAULTS, DELIVERY_FAULTS, FAULT_NAMES, Faults, Script, parse_faults
from upcall.sandbox.files import load_faults

ACCOUNT = "0000123456-00001"


def test_the_names_are_the_promised_ones():
    """The faults are called as the commands' contract says."""
    names = (
        "duplicate reorder delay drop refuse_once cut_body slow_body forged_forward unauthorized session_dead"
        " rate_limited server_error html reset stolen stale_listener"
    )
    assert set(FAULT_NAMES) == set(names.split())
    assert len(FAULT_NAMES) == 16


def test_an_account_has_its_own_rates():
    """A rate for one account stands in the place of the one for all, others stay."""
    faults = Faults({"drop": 0.5, "delay": 0.25}, {ACCOUNT: {"drop": 0.0}})
    assert faults.rate("drop", ACCOUNT, 0.0) == 0.0
    assert faults.rate("drop", "other", 0.0) == 0.5
    assert faults.rate("delay", ACCOUNT, 0.0) == 0.25
    assert faults.rate("html", ACCOUNT, 0.0) == 0.0


def test_scripts_change_rates_for_a_while():
    """A script holds from its time on, for as long as it says; of several, the last one named."""
    outage = Script(after_seconds=60, for_seconds=30, faults={"server_error": 1.0})
    quiet = Script(after_seconds=80, account=ACCOUNT, faults={"server_error": 0.0})
    faults = Faults({"server_error": 0.1}, {}, (outage, quiet))
    at = [0.0, 59.9, 60.0, 79.9, 80.0, 89.9, 90.0]
    assert [faults.rate("server_error", "other", when) for when in at] == [0.1, 0.1, 1.0, 1.0, 1.0, 1.0, 0.1]
    assert [faults.rate("server_error", ACCOUNT, when) for when in at] == [0.1, 0.1, 1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_script_alone_is_a_fault():
    """Faults that only a script brings are faults; rates of nought are none."""
    assert Faults({}, {}, (Script(faults={"drop": 1.0}),))
    assert not Faults({"drop": 0.0}, {ACCOUNT: {"html": 0.0}})


@pytest.mark.parametrize("name", DELIVERY_FAULTS)
def test_switching_one_on_leaves_the_others(name):
    """Which callbacks a fault hits does not depend on what else is switched on."""
    others = {other: 0.3 for other in DELIVERY_FAULTS if other != name}
    for seed in range(50):
        without = Faults(others).fortune(ACCOUNT, 0.0, Random(seed))
        with_it = Faults(others | {name: 1.0}).fortune(ACCOUNT, 0.0, Random(seed))
        changed = {field for field in without.__struct_fields__ if getattr(without, field) != getattr(with_it, field)}
        assert changed == {{"delay": "delay_seconds", "duplicate": "duplicate_seconds"}.get(name, name)}


def test_a_call_meets_one_fault_at_most():
    """Of several that hit a call the first by name is met, and a session's death is none of a call's."""
    everything = Faults(dict.fromkeys(API_FAULTS, 1.0))
    assert everything.trouble(ACCOUNT, 0.0, Random(1)).name == "unauthorized"
    assert Faults({"session_dead": 1.0}).trouble(ACCOUNT, 0.0, Random(1)).name is None
    assert Faults({"session_dead": 1.0}).session_dies(0.0, Random(1))


def test_to_dict_and_back():
    """What a control call shows can be sent back."""
    faults = Faults({"drop": 0.5}, {ACCOUNT: {"html": 1.0}}, (Script(after_seconds=1, faults={"reset": 1.0}),))
    assert Faults.checked(faults.to_dict()) == faults


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"all": {"eclipse": 1}}, "eclipse"),
        ({"accounts": {"a": {"drop": 1.5}}}, "drop is 1.5"),
        ({"script": [{"faults": {"drop": -1}}]}, "drop is -1"),
        ({"script": [{"after_seconds": -1, "faults": {}}]}, ">= 0.0"),
        ({"script": [{"for_seconds": 0, "faults": {}}]}, "> 0.0"),
        ({"script": [{"for_seconds": float("inf"), "faults": {}}]}, "seconds are numbers"),
        ({"script": [{"after_seconds": 1}]}, "missing required field `faults`"),
        ({"script": [{"account": "a b", "faults": {}}]}, "'a b' is no account's name"),
        ({"accounts": {"no good!": {}}}, "'no good!' is no account's name"),
        ({"everyone": {}}, "everyone"),
        ({"all": {"drop": "often"}}, r"\$\.all"),
        ([], "Expected"),
    ],
)
def test_unsound_faults(document, words):
    """What is wrong with faults is said, with where it stands."""
    with pytest.raises(SettingsError, match=words):
        Faults.checked(document)


def test_a_file_of_faults(tmp_path):
    """A TOML file has rates for all, for accounts, and scripts."""
    path = tmp_path / "faults.toml"
    path.write_text(
        '[all]\ndrop = 0.5\n[accounts."a-1"]\nhtml = 1\n[[script]]\nafter_seconds = 60\nfaults = { reset = 1 }\n'
    )
    assert load_faults(str(path)) == Faults(
        {"drop": 0.5}, {"a-1": {"html": 1.0}}, (Script(after_seconds=60.0, faults={"reset": 1.0}),)
    )
    assert load_faults("drop=0.5") == parse_faults("drop=0.5") == Faults({"drop": 0.5})
    assert load_faults(None) == Faults()


def test_a_file_that_is_not_there(tmp_path):
    """A file that cannot be read is named, with the reason."""
    with pytest.raises(SettingsError, match=r"nowhere\.toml: the file cannot be read: No such file"):
        load_faults(str(tmp_path / "nowhere.toml"))
