"""What the doctor makes of what it saw: decisions alone, without a socket, a store or a clock."""

import ssl
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.inbox import ListedDelivery, TokenRecord, Uptime
from upcall.listener import Token
from upcall.listener.probe import ProbeAnswer
from upcall.registration import Ours, Standing, Target
from upcall.registration.doctor import CERTAIN, CHECKS, PREFLIGHT, CheckResult, Limits, Looker, preflight
from upcall.registration.doctor.addresses import is_published_port, literal, unreachable
from upcall.registration.doctor.asking import ask, request_of
from upcall.registration.doctor.calling import ProviderSight, Signed
from upcall.registration.doctor.handshakes import blame, certificate_of, chain_text, wants_certificate
from upcall.registration.doctor.judging import account_form, of_sight, skew, url_form
from upcall.registration.doctor.keeping import SpoolSight, StoreSight
from upcall.registration.doctor.results import Chain, failed, ok, skipped, unknown, warning
from upcall.registration.doctor.shelving import last_callback, of_store
from upcall.registration.doctor.sights import FORGED, Attempt, Certificate, Handshake, Place, Reply, Sight
from upcall.registration.doctor.signing import of_credentials, of_provider, registered
from upcall.registration.doctor.tokens import of_token, secrets_of
from upcall.thingspace import CALLBACK_PORTS

ROOT = Path(__file__).parents[3]
ACCOUNT = "0000123456-00001"
TOKEN, OLD = "token-of-the-listener", "token-of-last-year-00"
URL = f"https://fleet.example.com/callbacks/{TOKEN}"
PLACE = Place.of(URL)
NOW = 1_800_000_000.0
MICROS = round(NOW * 1_000_000)
DAY = 86_400.0
GIBIBYTE = 1024**3

# the catalogue


def test_every_check_rests_on_earlier_ones():
    """The order of the report is one in which each check comes after all that decide over it."""
    seen = set()
    for name, check in CHECKS.items():
        assert {*check.rests_on, *check.explained_by} <= seen, name
        seen.add(name)


def test_the_page_lists_every_check_in_the_words_of_the_code():
    """docs/registration.md has a row a check, in order, with why it matters and what to do."""
    section = (ROOT / "docs" / "registration.md").read_text().partition("\n## Doctor\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    documented = [(name.strip("`"), why, todo) for name, why, todo in rows[2:]]
    assert documented == [(name, check.why, check.todo or "nothing: it never fails") for name, check in CHECKS.items()]


def test_a_write_is_refused_on_what_is_certain_alone():
    """What only this machine sees is no reason to refuse a write, unless somebody asks for that."""
    assert {"account-form", "url-form"} == CERTAIN
    assert CERTAIN < set(PREFLIGHT) < set(CHECKS)


# the chain


def taken(findings, before=None):
    chain = Chain(before)
    chain.take(findings, account=ACCOUNT)
    return chain, {result.name: (result.status, result.found) for result in chain.results}


def test_what_rests_on_a_failure_is_skipped_and_names_it():
    """The root of a row of failures is the only failure, and each of the others says which it is."""
    _, ends = taken({"dns": failed("no such name"), "connect": failed("x"), "tls": ok("y"), "port": warning("z")})
    assert ends == {
        "port": ("warning", "z"),
        "dns": ("failed", "no such name"),
        "connect": ("skipped", "because dns failed"),
        "tls": ("skipped", "because dns failed"),
    }


def test_what_rests_on_a_check_that_was_skipped_is_skipped():
    """Without credentials nothing that needs them can be checked, and that is no failure."""
    _, ends = taken({"bearer": skipped("not set"), "session": ok("x"), "registered": failed("y")})
    assert ends["session"] == ends["registered"] == ("skipped", "because bearer was skipped")


def test_what_was_not_needed_holds_nothing_up():
    """A check that has nothing to check lets those that rest on it be made."""
    _, ends = taken({"tls": skipped("plain", passes=True), "tls-version": ok("x")})
    assert ends["tls-version"] == ("ok", "x")


def test_a_failure_that_another_one_explains_is_skipped():
    """A listener that is down is named, and not the port that is closed because of it; what was seen is told."""
    _, ends = taken({"listener": failed("stopped"), "connect": failed("refused"), "tls": ok("x")})
    assert ends["connect"] == ("skipped", "because listener failed; seen here: refused")
    assert ends["tls"] == ("skipped", "because listener failed")


def test_an_explanation_is_carried_on():
    """Where one failure explains a second, and that a third, only the first is one."""
    before, _ = taken({"settings": failed("wrong url", passes=True)})
    _, ends = taken({"url-form": failed("http"), "registered": failed("another")}, before)
    assert ends["url-form"][1] == "because settings failed; seen here: http"
    assert ends["registered"][1] == "because settings failed; seen here: another"


def test_what_works_in_spite_of_a_failure_is_told_as_it_is():
    """A failure explains failures only: a port that is open is open."""
    _, ends = taken({"listener": failed("stopped"), "connect": ok("open")})
    assert ends["connect"] == ("ok", "open")


def test_warnings_and_doubts_hold_nothing_up():
    """What works badly, or cannot be told, is no reason not to look further."""
    _, ends = taken({"connect": warning("x"), "tls": ok("y"), "listener": unknown("z")})
    assert ends["tls"] == ("ok", "y")


def test_what_to_do_is_said_where_there_is_something_to_do():
    """A failure says what to do, in its own words or the catalogue's; what is well says nothing."""
    chain, _ = taken({"dns": failed("x"), "port": warning("y", "do this"), "account-form": ok("z")})
    assert {result.name: result.todo for result in chain.results} == {
        "dns": CHECKS["dns"].todo,
        "port": "do this",
        "account-form": "",
    }


STATUSES = st.sampled_from([ok("-"), failed("-"), warning("-"), skipped("-"), skipped("-", passes=True), unknown("-")])


@given(st.fixed_dictionaries(dict.fromkeys(CHECKS, STATUSES)))
def test_nothing_that_failed_rests_on_a_failure(findings):
    """Whatever each check comes to, the failures that are told are independent of one another."""
    chain, ends = taken(findings)
    assert len(ends) == len(CHECKS)
    failures = {name for name, (status, _) in ends.items() if status == "failed"}
    for name in failures:
        check = CHECKS[name]
        assert failures.isdisjoint(check.explained_by)
        assert all(ends[rest][0] != "failed" or findings[rest].passes for rest in check.rests_on)
    assert failures or not any(finding.status == "failed" for finding in findings.values()) or _all_blocked(findings)
    assert all(result.account == ACCOUNT for result in chain.results)


def _all_blocked(findings):
    """Tell whether each failure rests, over any number of steps, on a check that was skipped."""

    def is_blocked(name):
        return any(not findings[rest].passes or is_blocked(rest) for rest in CHECKS[name].rests_on)

    return all(is_blocked(name) for name, finding in findings.items() if finding.status == "failed")


# forms and addresses


@pytest.mark.parametrize(
    ("account", "status"),
    [(ACCOUNT, "ok"), ("242078689-00001", "warning"), ("anything", "warning"), ("", "failed"), (" 1", "failed")],
)
def test_the_form_of_an_account(account, status):
    """What cannot be an account fails; what only looks unusual is a warning, for the form is not documented."""
    assert account_form(account).status == status


@pytest.mark.parametrize(
    ("target", "url", "status", "text"),
    [
        (Target(account=ACCOUNT, url=URL, template=URL), URL, "ok", "https://fleet.example.com/callbacks/toke***"),
        (Target(account=ACCOUNT), URL, "ok", "as it is registered"),
        (Target(account=ACCOUNT), None, "skipped", "none is registered"),
        (Target(account=ACCOUNT, template="https://x/{token}", problem="no token fits"), None, "failed", "no token"),
        (Target(account=ACCOUNT, url="http://x/y"), "http://x/y", "failed", "not https"),
        (Target(account=ACCOUNT, url="http://127.0.0.1/y"), "http://127.0.0.1/y", "failed", "not https"),
    ],
)
def test_the_form_of_a_url(target, url, status, text):
    """A URL that ThingSpace takes passes, masked; without one it depends on whether one was wanted."""
    finding = url_form(target, url, allow_http=False)
    assert (finding.status, TOKEN in finding.found) == (status, False)
    assert text in finding.found


def test_http_to_this_machine_is_admitted_for_a_sandbox():
    """Where a sandbox is the provider a plain URL to this machine is in order."""
    assert url_form(Target(account=ACCOUNT), "http://127.0.0.1:8080/x", allow_http=True).status == "ok"


@pytest.mark.parametrize("port", [80, 443, 9001, 9006, 50559, 28200])
def test_published_ports(port):
    """The ends of the published ranges are in them."""
    assert is_published_port(port)


@pytest.mark.parametrize("port", [0, 81, 8443, 9000, 9007, 50560, 65535])
def test_other_ports(port):
    """What is not published is said not to be, and no more than that."""
    assert not is_published_port(port)
    judged = of_sight(Sight(place=msgspec.structs.replace(PLACE, port=port)), local=False, now=NOW)["port"]
    assert judged.status == "warning"
    assert CALLBACK_PORTS.certainty == "inferred"


@pytest.mark.parametrize(
    ("address", "kind", "local"),
    [
        ("8.8.8.8", None, None),
        ("2606:4700::1111", None, None),
        ("::ffff:8.8.8.8", None, None),
        ("127.0.0.1", "this machine", None),
        ("::1", "this machine", None),
        ("10.1.2.3", "private", None),
        ("fd00::1", "private", None),
        ("192.0.2.1", "private", None),
        ("::ffff:10.1.2.3", "private", None),
        ("169.254.169.254", "this link only", "this link only"),
        ("fe80::1%eth0", "this link only", "this link only"),
        ("100.64.0.1", "not public", "not public"),
        ("224.0.0.1", "a group of receivers", "a group of receivers"),
        ("0.0.0.0", "no host's", "no host's"),
        ("nonsense", "no address", "no address"),
    ],
)
def test_which_addresses_the_provider_reaches(address, kind, local):
    """ThingSpace reaches public addresses; a sandbox on this machine reaches what the machine does."""
    assert unreachable([address], local=False) == ([f"{address} ({kind})"] if kind else [])
    assert unreachable([address], local=True) == ([f"{address} ({local})"] if local else [])


def test_an_address_is_not_looked_up():
    """Only a name is resolved."""
    assert literal("192.0.2.1")
    assert literal("2001:db8::1")
    assert not literal("192.0.2.1.example")


# handshakes


class Refused(ssl.SSLCertVerificationError):
    """An error as the TLS library makes it."""

    def __init__(self, code, message):
        super().__init__(1, "certificate verify failed")
        self.verify_code, self.verify_message = code, message


def broken(reason, kind=ssl.SSLError):
    error = kind(1, f"[SSL: {reason}] something")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "flaw", "text"),
    [
        (Refused(10, "certificate has expired"), "certificate-dates", "certificate has expired"),
        (Refused(9, "certificate is not yet valid"), "certificate-dates", "not yet valid"),
        (Refused(62, "Hostname mismatch, certificate is not valid for 'x'."), "certificate-name", "Hostname mismatch"),
        (Refused(64, "IP address mismatch"), "certificate-name", "IP address mismatch"),
        (Refused(18, "self-signed certificate"), "certificate-chain", "self-signed"),
        (Refused(20, "unable to get local issuer certificate"), "certificate-chain", "issuer"),
        (Refused(68, "CA signature digest algorithm too weak"), "certificate-chain", "too weak"),
        (broken("TLSV1_ALERT_PROTOCOL_VERSION"), "tls-version", "1.2 or newer"),
        (broken("UNSUPPORTED_PROTOCOL"), "tls-version", "1.2 or newer"),
        (broken("WRONG_VERSION_NUMBER"), "tls", "does not speak TLS"),
        (broken("RECORD_LAYER_FAILURE"), "tls", "does not speak TLS"),
        (broken("SSLV3_ALERT_HANDSHAKE_FAILURE"), "tls", "no cipher is common"),
        (broken("TLSV1_UNRECOGNIZED_NAME"), "tls", "serves no host of that name"),
        (broken("UNEXPECTED_EOF_WHILE_READING", ssl.SSLEOFError), "tls", "closed in the middle"),
        (broken("BAD_ECPOINT"), "tls", "the handshake failed: bad ecpoint"),
        (ConnectionResetError(), "tls", "closed in the middle"),
        (TimeoutError(), "tls", "took too long"),
        (ValueError("label too long"), "tls", "label too long"),
    ],
)
def test_which_check_a_handshake_fails_by(error, flaw, text):
    """What the TLS library says is told apart: no TLS, an old one, a certificate's chain, dates or name."""
    seen = blame(error)
    assert seen.flaw == flaw
    assert text in seen.text


@pytest.mark.parametrize(
    ("code", "sent", "text"),
    [
        (18, 1, "self-signed"),
        (19, 2, "ends at an authority"),
        (20, 1, "its intermediate certificate is missing"),
        (21, None, "its intermediate certificate is missing"),
        (20, 2, "lead to no authority"),
        (2, 3, "lead to no authority"),
        (68, 3, "OpenSSL's words"),
    ],
)
def test_why_a_chain_is_not_believed(code, sent, text):
    """Self-signed, of an unknown authority and without its intermediate are told apart; all else is OpenSSL's words."""
    assert text in chain_text(code, "OpenSSL's words", sent)


def test_what_a_certificate_says():
    """Its dates and the names and addresses that it is for are read; an unverified one tells nothing."""
    told = {
        "notBefore": "a",
        "notAfter": "bb",
        "subjectAltName": (("DNS", "x.example"), ("URI", "no"), ("IP Address", "192.0.2.1")),
    }
    assert certificate_of(told, len) == Certificate(1, 2, ("x.example", "192.0.2.1"))
    assert certificate_of({}, len) is None


def test_a_client_certificate_that_is_wanted_late():
    """With TLS 1.3 the handshake is over before the other end says that it wants a certificate of ours."""
    assert wants_certificate(broken("TLSV13_ALERT_CERTIFICATE_REQUIRED"))
    assert not wants_certificate(ConnectionResetError())


# what is asked and answered


def test_a_probe_keeps_the_url_whole():
    """The path and the query of the URL are sent as they are, the nonce behind them, and the port where it is odd."""
    lines = request_of(Place.of(f"https://x.example:50559/a%2Fb/{TOKEN}?c=d"), "n" * 16).decode().split("\r\n")
    assert lines[:2] == [f"GET /a%2Fb/{TOKEN}?c=d&probe={'n' * 16} HTTP/1.1", "Host: x.example:50559"]
    forged = request_of(Place.of("https://[2001:db8::1]/x"), "n" * 16, forwarded=FORGED).decode()
    assert forged.startswith(f"GET /x?probe={'n' * 16} HTTP/1.1\r\nHost: [2001:db8::1]\r\n")
    assert forged.endswith(f"\r\nX-Forwarded-For: {FORGED}\r\n\r\n")


class Pieces:
    """Stand for a connection that answers in pieces, and then closes."""

    def __init__(self, *pieces):
        self._pieces = list(pieces)

    def settimeout(self, seconds):
        assert seconds > 0

    def sendall(self, data):
        assert data == b"request"

    def recv(self, most):
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece[:most]


def asked(*pieces, until=float("inf")):
    return ask(Pieces(*pieces), b"request", nonce="n" * 16, secrets=[TOKEN], until=until)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], {"status": 200, "is_empty": True}),
        ([b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r\n", b"{", b"}", TimeoutError()], {"status": 200}),
        ([b"HTTP/1.1 200 OK\r\n\r\nuntil the end"], {"status": 200}),
        ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\ncut"], {"status": 404}),
        (
            [b"HTTP/1.1 302 Found\r\nLocation: https://u:p@x.example/callbacks/canary\r\nContent-Length: 0\r\n\r\n"],
            {"status": 302, "location": "https://x.example", "is_empty": True},
        ),
        (
            [b"HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"],
            {"status": 307, "location": "another path there", "is_empty": True},
        ),
        ([b"HTTP/1.1 301 X\r\nLocation: https://[::1\r\nContent-Length: 0\r\n\r\n"], {"status": 301, "is_empty": True}),
        ([], {"error": "the connection was closed without an answer"}),
        ([ConnectionResetError()], {"error": "the connection was closed without an answer"}),
        ([b"SSH-2.0-OpenSSH\r\n"], {"error": "what came is no HTTP answer"}),
        ([b"HTTP/1.1 200 OK\r\n", TimeoutError()], {"error": "no whole answer came in time"}),
    ],
)
def test_what_is_made_of_an_answer(pieces, expected):
    """Whole answers are read as soon as they are whole; anything else has one sentence, and no address's path."""
    assert asked(*pieces) == Reply(**expected)


def test_an_answer_that_drips_has_an_end():
    """Somebody who sends a byte now and then keeps nobody waiting past the time for it."""
    assert asked(b"HTTP/1.1 200 OK\r\n", until=0.0).error == "no whole answer came in time"


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_no_answer_breaks_it(pieces):
    """Whatever bytes come, there is a status or a sentence, and never a proof."""
    reply = asked(*pieces)
    assert (reply.status is None) == bool(reply.error)
    assert not reply.is_proved


# what a look comes to

CERTIFICATE = Certificate(NOW - DAY, NOW + 60 * DAY, ("fleet.example.com",))
SAID = ProbeAnswer(proof="", source="203.0.113.9", listed=False, time="2027-01-15T08:00:00Z")
REPLY = Reply(status=200, said=SAID, is_proved=True, seconds=0.012, at=NOW)
SOUND = Sight(
    place=PLACE,
    addresses=("8.8.8.8",),
    attempts=(Attempt("8.8.8.8"),),
    handshake=Handshake(version="TLSv1.3", certificate=CERTIFICATE, sent=2),
    reply=REPLY,
    forged=REPLY,
)


def but(value, **changes):
    return msgspec.structs.replace(value, **changes)


def judged(sight, name):
    return of_sight(sight, local=False, now=NOW)[name]


def test_a_sound_sight():
    """Where all is well each check says what it saw."""
    findings = of_sight(SOUND, local=False, now=NOW)
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert findings["answer-time"].found == "12 ms"
    assert findings["certificate-dates"].found == "it ends on 2027-03-16 08:00 UTC"
    assert findings["forwarded-for"].found.endswith("it sees 203.0.113.9")


def test_plain_http_needs_no_certificate():
    """A sandbox's plain URL has no TLS to look at, and the rest is looked at all the same."""
    findings = of_sight(but(SOUND, place=Place.of("http://127.0.0.1/x"), handshake=None), local=True, now=NOW)
    assert {name for name, finding in findings.items() if finding.status == "skipped"} == {
        "port",
        "tls",
        "tls-version",
        "certificate-chain",
        "certificate-dates",
        "certificate-name",
    }
    assert all(finding.passes for name, finding in findings.items() if name != "port")


def test_what_was_not_reached_in_time_says_so():
    """A run has an end, and what it did not come to is skipped for that reason."""
    findings = of_sight(Sight(place=PLACE, is_late=True), local=False, now=NOW)
    assert findings["dns"] == findings["connect"] == skipped("the time that a run may take was over")


@pytest.mark.parametrize(
    ("attempts", "status"),
    [
        ([Attempt("8.8.8.8"), Attempt("8.8.4.4", "connection refused")], "warning"),
        ([Attempt("8.8.8.8"), Attempt("2606:4700::1", "network is unreachable", is_ours=True)], "ok"),
        ([Attempt("8.8.8.8", "no answer"), Attempt("8.8.4.4", "connection refused")], "failed"),
        ([Attempt("2606:4700::1", "network is unreachable", is_ours=True)], "failed"),
    ],
)
def test_addresses_that_take_no_connection(attempts, status):
    """One of several that is closed is a warning; one that this machine has no way to proves nothing."""
    assert judged(but(SOUND, attempts=tuple(attempts)), "connect").status == status


@pytest.mark.parametrize(
    ("starts", "ends", "status"),
    [
        (-1, 60, "ok"),
        (-1, 14.1, "ok"),
        (-1, 13.9, "warning"),
        (-1, 0.1, "warning"),
        (-9, -1, "failed"),
        (1, 9, "failed"),
    ],
)
def test_the_dates_of_a_certificate(starts, ends, status):
    """Two weeks before its end a certificate is a warning, outside of its dates a failure."""
    certificate = but(CERTIFICATE, starts_at=NOW + starts * DAY, ends_at=NOW + ends * DAY)
    assert (
        judged(but(SOUND, handshake=but(SOUND.handshake, certificate=certificate)), "certificate-dates").status
        == status
    )


def test_dates_and_names_that_could_not_be_read():
    """Where the certificate itself could not be seen, what the TLS library said is told."""
    seen = Handshake(flaw="certificate-dates", code=10, text="certificate has expired")
    assert judged(but(SOUND, handshake=seen), "certificate-dates") == failed("certificate has expired")
    seen = Handshake(flaw="certificate-name", code=62, text="x")
    assert judged(but(SOUND, handshake=seen), "certificate-name").found == (
        "it names something else, and not fleet.example.com"
    )
    assert judged(but(SOUND, handshake=Handshake()), "certificate-dates").status == "ok"
    many = but(CERTIFICATE, names=tuple(f"{number}.example" for number in range(9)))
    seen = Handshake(flaw="certificate-name", code=62, certificate=many)
    assert "4.example and 4 more, and not" in judged(but(SOUND, handshake=seen), "certificate-name").found


@pytest.mark.parametrize(
    ("seconds", "status"), [(0.2, "ok"), (1.0, "ok"), (1.1, "warning"), (4.0, "warning"), (4.1, "failed")]
)
def test_how_long_an_answer_may_take(seconds, status):
    """Over a second is a warning; over the four after which a callback is sent again, a failure."""
    assert judged(but(SOUND, reply=but(REPLY, seconds=seconds)), "answer-time").status == status


@pytest.mark.parametrize(
    ("off", "status"), [(0, "ok"), (-30, "ok"), (31, "warning"), (-300, "warning"), (301, "failed")]
)
def test_how_far_clocks_may_be_apart(off, status):
    """Half a minute is nothing, five minutes are too much, in either direction."""
    finding = skew(NOW + off, NOW, "the provider's")
    assert finding.status == status
    assert ("ahead of" in finding.found) == (off > 30)


def test_a_listener_that_tells_no_time():
    """A time that cannot be read is no failure of a clock."""
    assert judged(but(SOUND, reply=but(REPLY, said=but(SAID, time="noon"))), "listener-clock").status == "skipped"


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(status=200, is_empty=True), "something answers 200"),
        (Reply(status=204), "something answers 200"),
        (Reply(status=200, said=SAID), "a proof that is not this token's"),
        (Reply(status=401), "something before the listener does"),
        (Reply(status=404), "does not know the token"),
        (Reply(status=418), "as no listener does"),
        (Reply(status=429), "counts requests"),
        (Reply(status=503), "it answers 503: a proxy whose listener"),
        (Reply(error="no whole answer came in time"), "no whole answer"),
    ],
)
def test_answers_that_prove_nothing(reply, text):
    """Whatever else answers is named by what it answered."""
    finding = judged(but(SOUND, reply=reply), "round-trip")
    assert finding.status == "failed"
    assert text in finding.found


def test_a_forged_source():
    """Whom the listener takes the asker for decides; without its answer there is nothing to judge."""
    believed = but(REPLY, said=but(SAID, source=FORGED))
    assert judged(but(SOUND, forged=believed), "forwarded-for").status == "failed"
    assert judged(but(SOUND, forged=None), "forwarded-for").status == "skipped"
    assert judged(but(SOUND, forged=Reply(status=403)), "forwarded-for").status == "skipped"


# the provider


PROVIDER = ProviderSight(base_url="https://provider.example/api", signed={None: Signed()})


def test_the_nearest_of_several_clocks_counts():
    """An answer that took long makes a clock look slow, never right."""
    sight = but(PROVIDER, clocks=((NOW - 400, NOW), (NOW - 1, NOW)))
    assert of_provider(sight)["clock"].status == "ok"
    assert of_provider(PROVIDER)["clock"] == skipped("the provider's answers say no time", passes=True)


def test_a_provider_in_trouble_is_not_the_credentials_fault():
    """A login that got no verdict is a failure of the provider; one that was refused is one of the credentials."""
    in_trouble = but(PROVIDER, signed={None: Signed(error="503")})
    assert of_provider(in_trouble)["provider"] == failed("503")
    refused = but(PROVIDER, signed={None: Signed(error="401", is_refusal=True, is_bearer=True)})
    assert of_provider(refused)["provider"].status == "ok"
    assert of_provider(but(PROVIDER, error="nobody there"))["provider"] == failed("nobody there")


@pytest.mark.parametrize(
    ("signed", "bearer", "session"),
    [
        (Signed(), "ok", "ok"),
        (Signed(missing=("THINGSPACE_CLIENT_ID",)), "skipped", "ok"),
        (Signed(error="x", is_refusal=True, is_bearer=True), "failed", "failed"),
        (Signed(error="x", is_refusal=True), "ok", "failed"),
        (Signed(is_given=True), "ok", "unknown"),
        (Signed(is_given=True, proved=True), "ok", "ok"),
        (Signed(is_given=True, given_refused="x"), "ok", "failed"),
    ],
)
def test_which_token_is_refused(signed, bearer, session):
    """Client and user are told apart; a session token that was given is judged by the calls that were made with it."""
    findings = of_credentials(signed)
    assert (findings["bearer"].status, findings["session"].status) == (bearer, session)


NEXT = "token-that-comes-next"
WANTED = Target(
    account=ACCOUNT,
    url=URL,
    template="https://fleet.example.com/callbacks/{token}",
    tokens=(TOKEN, NEXT),
    next_urls=(f"https://fleet.example.com/callbacks/{NEXT}",),
)


@pytest.mark.parametrize(
    ("url", "status", "text"),
    [
        (URL, "ok", "https://fleet.example.com/callbacks/toke***"),
        (f"https://fleet.example.com/callbacks/{NEXT}", "ok", "a rotation is under way"),
        (f"https://fleet.example.com/callbacks/{OLD}", "failed", "an older URL of ours"),
        ("https://thief.example/callbacks/canary-x", "failed", "somebody else's URL stands there: https://thief"),
        (None, "failed", "nothing is registered"),
    ],
)
def test_what_is_registered(url, status, text):
    """Ours, ours of old, ours to come, somebody else's and nothing are told apart, and no token is shown."""
    ours = Ours([WANTED], secrets=[TOKEN, NEXT, OLD])
    finding = registered(WANTED, Standing(account=ACCOUNT, url=url), ours)
    assert finding.status == status
    assert text in finding.found
    assert not any(token in finding.found for token in (TOKEN, NEXT, OLD, "canary"))


@pytest.mark.parametrize(
    ("target", "standing", "status"),
    [
        (WANTED, None, "skipped"),
        (WANTED, Standing(account=ACCOUNT, error="400"), "failed"),
        (Target(account=ACCOUNT), Standing(account=ACCOUNT, url=URL), "ok"),
        (Target(account=ACCOUNT), Standing(account=ACCOUNT), "warning"),
        (Target(account=ACCOUNT, template="x{token}", problem="none"), Standing(account=ACCOUNT), "unknown"),
    ],
)
def test_what_cannot_be_compared(target, standing, status):
    """An account that was not read, or for which nothing is desired, is neither right nor wrong."""
    assert registered(target, standing, Ours([])).status == status


# this machine

SPOOL = SpoolSight(directory="/spool", free_bytes=GIBIBYTE)
STORE = StoreSight(url="sqlite:////x.db", was_read=True, free_bytes=GIBIBYTE, spool=SPOOL)
LIVING = Uptime(listener="here 1 a 1", began_at=MICROS - 10**9, last_at=MICROS - 5_000_000, tokens=(Token(TOKEN).id,))


@pytest.mark.parametrize(
    ("store", "status"),
    [
        (STORE, "ok"),
        (but(STORE, was_read=False), "ok"),
        (but(STORE, is_missing=True), "skipped"),
        (but(STORE, is_missing=True, is_named=True), "failed"),
        (but(STORE, error="an older Upcall wrote it"), "failed"),
        (but(STORE, problems=("a page is torn", "so is another")), "failed"),
        (but(STORE, free_bytes=1024), "warning"),
        (but(STORE, quarantine_bytes=GIBIBYTE - 1), "warning"),
    ],
)
def test_the_store(store, status):
    """What cannot be used or is damaged fails, what is nearly full warns, and none is missed where none is wanted."""
    assert of_store(store, MICROS)["store"].status == status


@pytest.mark.parametrize(
    ("spool", "status"),
    [
        (SPOOL, "ok"),
        (but(SPOOL, error="no directory"), "failed"),
        (but(SPOOL, damaged=("1.spool",), waiting=3), "failed"),
        (but(SPOOL, waiting=3), "warning"),
        (but(SPOOL, free_bytes=1024), "warning"),
    ],
)
def test_the_spool(spool, status):
    """A spool that could not take callbacks fails; one that holds some warns, with what to do about it."""
    assert of_store(but(STORE, spool=spool), MICROS)["spool"].status == status


def test_callbacks_that_wait_in_the_spool_wait_for_somebody():
    """With a listener there the store is at fault, and without one the listener."""
    waiting = but(STORE, spool=but(SPOOL, waiting=3))
    assert "upcall listen" in of_store(waiting, MICROS)["spool"].todo
    assert "upcall store check" in of_store(but(waiting, uptimes=(LIVING,)), MICROS)["spool"].todo


@pytest.mark.parametrize(
    ("uptimes", "status"),
    [
        ((), "unknown"),
        ((LIVING,), "ok"),
        ((but(LIVING, ended=True),), "failed"),
        ((but(LIVING, last_at=MICROS - 60_000_000),), "failed"),
        ((but(LIVING, ended=True), but(LIVING, listener="there 2 b 1")), "ok"),
    ],
)
def test_the_listener(uptimes, status):
    """One that gave a sign of life in the last seconds accepts; a store that never had one says nothing."""
    assert of_store(but(STORE, uptimes=uptimes), MICROS)["listener"].status == status


def test_the_last_callback():
    """None is no failure; one that came says when and from where."""
    assert last_callback(None, MICROS).status == "unknown"
    found = last_callback(ListedDelivery(MICROS - 3 * 86_400_000_000, FORGED), MICROS)
    assert (found.status, found.found) == ("ok", f"2027-01-12 08:00:00 UTC, 3 days ago, from {FORGED}")


# tokens

LIVE, RETIRING, RETIRED = (TokenRecord(TOKEN, (), state=state) for state in ("live", "retiring", "retired"))
PROVED, UNPROVED = SOUND, but(SOUND, reply=Reply(status=404))


@pytest.mark.parametrize(
    ("sight", "tokens", "uptimes", "given_tokens", "status"),
    [
        (PROVED, [], [], [], "ok"),
        (PROVED, [LIVE], [LIVING], [], "ok"),
        (PROVED, [RETIRING], [LIVING], [], "warning"),
        (PROVED, [TokenRecord(OLD, ())], [], [], "warning"),
        (PROVED, [TokenRecord(OLD, ())], [], [Token(TOKEN)], "ok"),
        (PROVED, [LIVE], [], [Token(TOKEN, frozenset({"another"}))], "failed"),
        (PROVED, [LIVE], [], [Token(TOKEN, frozenset({ACCOUNT, "another"}))], "ok"),
        (UNPROVED, [RETIRED], [], [], "failed"),
        (UNPROVED, [LIVE], [], [], "ok"),
        (UNPROVED, [LIVE], [LIVING], [], "ok"),
        (UNPROVED, [], [LIVING], [], "ok"),
        (UNPROVED, [LIVE], [but(LIVING, tokens=("other",))], [], "failed"),
        (UNPROVED, [LIVE], [but(LIVING, tokens=("other",)), LIVING], [], "ok"),
        (UNPROVED, [], [], [Token(TOKEN)], "ok"),
        (UNPROVED, [TokenRecord(OLD, ())], [], [], "failed"),
        (UNPROVED, [], [], [], "skipped"),
        (None, [LIVE], [], [], "ok"),
    ],
)
def test_whether_a_token_is_accepted(sight, tokens, uptimes, given_tokens, status):
    """A proof is believed before all else, then what living listeners say, then what the store has and was given."""
    store = but(STORE, tokens=tuple(tokens), uptimes=tuple(uptimes))
    finding = of_token(ACCOUNT, [TOKEN], sight=sight, store=store, given=given_tokens, now=MICROS)
    assert finding.status == status
    assert TOKEN not in finding.found + finding.todo


def test_which_part_of_a_url_is_its_token():
    """What was filled into the template is the token, wherever it stands; else the last part of the path."""
    inside = but(WANTED, template="https://x.example/{token}/hook", tokens=(TOKEN,))
    assert secrets_of(inside, f"https://x.example/{TOKEN}/hook") == (TOKEN,)
    assert secrets_of(inside, "https://x.example/another/hook") == ("hook",)
    assert secrets_of(Target(account=ACCOUNT), "https://x.example/callbacks/a%7Eb/") == ("a~b",)
    assert secrets_of(Target(account=ACCOUNT), "https://x.example") == ()
    assert of_token(ACCOUNT, (), sight=None, store=STORE, given=(), now=MICROS).status == "skipped"


# before a write


def nobody(_):
    raise AssertionError("nothing is to be looked up")


def test_the_page_says_how_long_a_run_may_take():
    """The limits that the page names are those of the code."""
    text = " ".join((ROOT / "docs" / "registration.md").read_text().split())
    limits = Limits()
    assert (
        f"a URL has {limits.url_seconds:.0f} s, and one that was not begun within {limits.run_seconds / 60:.0f} min"
        in text
    )
    steps = limits.resolve_seconds + (limits.addresses + 1) * limits.connect_seconds
    assert steps + limits.handshake_seconds + limits.answer_seconds < limits.url_seconds, "no step is cut short by it"


def test_what_is_certain_is_found_without_looking():
    """A URL that can never be registered is not looked at: the rest is skipped because of its form."""
    targets = [Target(account=ACCOUNT, url="http://x.example/y"), Target(account="..", template="x", problem="none")]
    results = preflight(targets, Looker(resolver=nobody))
    assert [result.name for result in results] == [*PREFLIGHT, *PREFLIGHT]
    assert {(result.account, result.name) for result in results if result.status == "failed"} == {
        (ACCOUNT, "url-form"),
        ("..", "account-form"),
        ("..", "url-form"),
    }
    assert {result.found for result in results if result.status == "skipped"} == {"because url-form failed"}


def test_accounts_that_share_a_url_have_it_looked_at_once():
    """Five hundred accounts behind one listener cost one look, and each has its own results."""
    asked_for = []

    def resolver(host):
        asked_for.append(host)
        return []

    targets = [Target(account=f"0000123456-{number:05}", url=URL, template=URL) for number in range(50)]
    results = preflight(targets, Looker(resolver=resolver))
    assert asked_for == ["fleet.example.com"]
    assert len([result for result in results if result.name == "dns" and result.status == "failed"]) == 50


def test_a_result_is_plain_and_shows_no_secret():
    """What is told is text, for JSON and for people."""
    result = CheckResult(name="dns", status="ok", found="x", why="y")
    assert msgspec.json.decode(msgspec.json.encode(result)) == msgspec.structs.asdict(result)
    assert TOKEN not in repr([PLACE, SOUND, but(STORE, tokens=(LIVE,))])
