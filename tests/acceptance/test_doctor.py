"""``upcall doctor`` over real processes: a sandbox, a listener behind TLS, and the command itself."""

import json
import re

import pytest
import trustme

from upcall.inbox import open_inbox

ACCOUNT = "0000123456-00001"
TOKEN = "token-of-the-doctors-test"
OWN = {f"THINGSPACE_{name}": "sandbox" for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")}


class Patient:
    """Run a sandbox and a listener behind TLS, and ask the doctor about them.

    Args:
        upcall: Where commands run.
    """

    def __init__(self, upcall):
        self.upcall = upcall
        authority = trustme.CA()
        leaf = authority.issue_cert("127.0.0.1")
        self.trust = upcall.directory / "authority.pem"
        self.trust.write_bytes(authority.cert_pem.bytes())
        certificate, key = upcall.directory / "cert.pem", upcall.directory / "key.pem"
        certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        key.write_bytes(leaf.private_key_pem.bytes())
        sandbox = upcall.start("sandbox", "--port", "0")
        upcall.environment |= OWN | {"THINGSPACE_BASE_URL": ready(sandbox)}
        words = ["--port", "0", "--store", upcall.store, "--token", TOKEN, "--mask-token"]
        self.listener = upcall.start("listen", *words, "--tls-cert", str(certificate), "--tls-key", str(key))
        self.root = ready(self.listener).rpartition("/")[0]
        upcall.until(self.has_beaten)
        (upcall.directory / "upcall.toml").write_text(
            f'[[accounts]]\nname = "{ACCOUNT}"\nurl = "{self.root}/{{token}}"\nlabels = ["east"]\n'
        )
        upcall.environment["UPCALL_TOKENS"] = TOKEN
        applied = upcall.run("apply", "--yes", "--json", "--store", upcall.store)
        assert applied.returncode == 0, applied.stderr

    def has_beaten(self):
        with open_inbox(self.upcall.store) as inbox:
            return inbox.uptimes()

    def ask(self, *words):
        ended = self.upcall.run("doctor", *words, "--store", self.upcall.store, "--trust", str(self.trust))
        assert TOKEN not in ended.stdout + ended.stderr
        return ended

    def told(self, *words):
        """Return the exit code and the results."""
        ended = self.ask("--json", *words)
        return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()]


def ready(server):
    line = server.next_line()
    assert line is not None, server.errors.read_text()
    return line.split()[1]


@pytest.fixture
def patient(upcall):
    return Patient(upcall)


def test_all_is_well_and_then_the_listener_stops(patient):
    """Sound, it exits 0 and says so of each check; with the listener gone it exits 1 and names that alone."""
    code, results = patient.told()
    assert (code, {each["status"] for each in results}) == (0, {"ok", "skipped", "unknown"}), results
    assert {each["name"] for each in results if each["status"] != "ok"} == {"clock", "port", "last-callback"}
    assert all(each["why"] for each in results)

    patient.listener.end()
    code, results = patient.told()
    assert (code, [each["name"] for each in results if each["status"] == "failed"]) == (1, ["listener"])
    (connect,) = (each for each in results if each["name"] == "connect")
    assert connect["found"].startswith("because listener failed; seen here: no connection to port")

    ended = patient.ask()
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    assert lines[0] == "this machine and ThingSpace"
    (at,) = (number for number, line in enumerate(lines) if "FAILED" in line)
    assert lines[at].split()[:2] == ["FAILED", "listener"]
    assert lines[at + 1].strip().startswith("why: ")
    assert lines[at + 2].strip() == "do:  Start it: upcall listen"
    assert f"account {ACCOUNT}" in lines
    assert re.fullmatch(rf"upcall: {len(results)} checks: \d+ ok, 1 failed, \d+ skipped, 1 unknown.\n", ended.stderr)


def test_what_a_person_chooses(patient):
    """Accounts, labels and a URL choose what is looked at; strict exits 1 on a warning; what makes no sense exits 2."""
    code, results = patient.told("--label", "east")
    assert (code, {each["account"] for each in results}) == (0, {None, ACCOUNT})

    other = ("0000123456-1", "--url", f"{patient.root}/{{token}}")
    code, results = patient.told(*other)
    assert (code, [each["name"] for each in results if each["status"] == "failed"]) == (1, ["registered"])
    assert [each["name"] for each in results if each["status"] == "warning"] == ["account-form"]

    patient.upcall.run("callbacks", "register", "0000123456-1", "--url", f"{patient.root}/{TOKEN}")
    assert patient.ask(*other).returncode == 0
    assert patient.ask(*other, "--strict").returncode == 1

    for words, said in (
        (("--url", "https://x"), "no account that it is for"),
        ((ACCOUNT, "--all"), "both given"),
        (("--label", "west"), "No account has the label west: the labels are east."),
        (("--trust", "nowhere.pem"), "cannot be used: No such file"),
    ):
        ended = patient.upcall.run("doctor", *words)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert said in ended.stderr
