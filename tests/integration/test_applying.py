"""Making what is registered what should be, against the sandbox: each write read back, and safe to repeat."""

import itertools

import httpx2
import pytest

from upcall.errors import ThingSpaceError
from upcall.inbox import TokenRecord, open_inbox
from upcall.registration import Audit, Standing, carry_out, decision, drive, flaw_of, read_desired
from upcall.registration.audit import TOPIC
from upcall.settings import Account
from upcall.testing.transport import InProcess

A, B, C = "0000123456-00001", "0000123456-00002", "0000123456-00003"
TEMPLATE = "https://fleet.example:50559/callbacks/{token}"
TOKEN = "token-of-this-very-store"
URL = TEMPLATE.replace("{token}", TOKEN)
THEIRS = "https://another.example:50559/callbacks"


class StoppedError(Exception):
    """The program was stopped."""


class Stopping(httpx2.BaseTransport):
    """Stop the program at one of its calls, before it is sent or after it was carried out."""

    def __init__(self, sandbox, at, *, carried_out):
        self._inner = InProcess(sandbox._sandbox, sandbox._loop)
        self._left = at
        self._carried_out = carried_out

    def handle_request(self, request):
        if "/callbacks/" in request.url.path:
            self._left -= 1
            if self._left == 0 and not self._carried_out:
                raise StoppedError
        answer = self._inner.handle_request(request)
        if self._left == 0 and "/callbacks/" in request.url.path:
            raise StoppedError
        return answer


class Fleet:
    """Hold the accounts of a settings file, a store, and a sandbox."""

    def __init__(self, sandbox, inbox):
        self.sandbox = sandbox
        self.inbox = inbox
        self.accounts = [Account(name=name, url=TEMPLATE) for name in (A, B, C)]
        self.log = []
        self.clock = itertools.count(1)

    def apply(self, *accounts, replace=False, prune=False, **options):
        """Apply as the command does, one account after the other; return what became of each."""
        desired = read_desired(self.accounts, self.inbox)
        pruned = desired.gone() if prune else {}
        decide = decision(desired.targets, desired.ours, pruned=pruned)
        audit = Audit(self.inbox, "apply", now=lambda: next(self.clock))
        ends = {}
        with self.sandbox.client(max_retries=0, **options) as client:
            for account in accounts or (*(target.account for target in desired.targets), *pruned):
                try:
                    flow = carry_out(
                        account,
                        decide,
                        lambda step: "not ours" if step.action == "replace" and not replace else None,
                        audit,
                    )
                    ends[account] = drive(flow, client).outcome
                except ThingSpaceError:
                    ends[account] = "failed"
        return ends

    def stands(self, account=A):
        with self.sandbox.client() as client:
            return client.callbacks.list_registered_callbacks(account).url

    def audit(self, account=None):
        return [entry.document["outcome"] for entry in self.inbox.journal(TOPIC, account=account)]


@pytest.fixture
def fleet(thingspace_sandbox, tmp_path):
    with open_inbox(f"sqlite:///{tmp_path / 'inbox.db'}", create=True) as inbox:
        inbox.add_token(TokenRecord(TOKEN, ()), 1)
        yield Fleet(thingspace_sandbox, inbox)


def test_everything_is_registered_and_a_second_run_does_nothing(fleet):
    """Applying what is applied writes nothing, neither to the provider nor to the audit."""
    assert fleet.apply() == dict.fromkeys((A, B, C), "done")
    assert [fleet.stands(account) for account in (A, B, C)] == [URL] * 3
    before = fleet.audit()
    assert fleet.apply() == dict.fromkeys((A, B, C), "none")
    assert fleet.audit() == before == ["begun", "done"] * 3


def test_somebody_else_s_url_is_left_without_replace(fleet):
    """The last writer wins at the provider, so the guardian does not write unless it is told to."""
    fleet.sandbox.register(B, THEIRS)
    assert fleet.apply() == {A: "done", B: "refused", C: "done"}
    assert fleet.stands(B) == THEIRS
    assert fleet.audit(B) == []
    assert fleet.apply(replace=True) == {A: "none", B: "done", C: "none"}
    (_, ended) = fleet.inbox.journal(TOPIC, account=B)
    assert (ended.document["action"], ended.document["before"], ended.document["after"]) == ("replace", THEIRS, URL)


def test_what_changed_since_the_plan_is_decided_anew(fleet):
    """A slot that was empty when it was shown, and is somebody's when it is written, is left alone."""
    desired = read_desired(fleet.accounts, fleet.inbox)
    decide = decision(desired.targets, desired.ours)
    assert decide(Standing(account=A)).action == "register"
    fleet.sandbox.register(A, THEIRS)
    assert fleet.apply(A) == {A: "refused"}
    assert fleet.stands() == THEIRS


def test_one_account_that_fails_leaves_the_rest_done(fleet):
    """Errors of the provider for one account are that one's; the next run does what is left."""
    fleet.sandbox.set_faults(B, server_error=1.0)
    assert fleet.apply() == {A: "done", B: "failed", C: "done"}
    fleet.sandbox.set_faults()
    assert fleet.apply() == {A: "none", B: "done", C: "none"}


@pytest.mark.parametrize("fault", ["session_dead", "unauthorized", "html", "reset", "rate_limited"])
def test_whatever_the_provider_does_a_repetition_ends_it(fleet, fault):
    """Under each fault of the API nothing foreign is written, and once it is over one more run is in order."""
    fleet.sandbox.register(B, THEIRS)
    fleet.sandbox.set_faults(**{fault: 0.5})
    for _ in range(3):
        fleet.apply()
        fleet.sandbox.advance(100)
    fleet.sandbox.set_faults()
    assert set(fleet.apply().values()) <= {"none", "done", "refused"}
    assert [fleet.stands(account) for account in (A, B, C)] == [URL, THEIRS, URL]


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("at", range(1, 10))
def test_interrupted_at_any_call_it_can_be_repeated(fleet, at, carried_out):
    """Stopped before or after each call, the next run finishes, and the audit knows of every write that was begun."""
    with pytest.raises(StoppedError):
        fleet.apply(transport=Stopping(fleet.sandbox, at, carried_out=carried_out))
    assert set(fleet.apply().values()) <= {"none", "done"}
    assert [fleet.stands(account) for account in (A, B, C)] == [URL] * 3
    assert all(fleet.audit(account)[0] == "begun" for account in (A, B, C))
    assert set(fleet.apply().values()) == {"none"}


def test_what_is_read_back_counts_and_not_what_was_answered(fleet):
    """Another system that writes in between is seen at the read-back, and the audit says what stood."""

    class Racing(InProcess):
        def handle_request(self, request):
            answer = super().handle_request(request)
            if request.method == "POST" and "/callbacks/" in request.url.path:
                fleet.sandbox.register(A, THEIRS)
            return answer

    transport = Racing(fleet.sandbox._sandbox, fleet.sandbox._loop)
    assert fleet.apply(A, transport=transport) == {A: "differs"}
    assert fleet.audit(A) == ["begun", "differs"]
    assert fleet.inbox.journal(TOPIC)[-1].document["stands"] == THEIRS


def test_prune_removes_what_we_registered_and_nothing_else(fleet):
    """An account that left the file is deregistered where our URL stands, and left where somebody else's does."""
    fleet.apply()
    fleet.sandbox.register(C, THEIRS)
    fleet.sandbox.register("0000999999-00001", THEIRS)
    fleet.accounts = fleet.accounts[:1]
    assert fleet.apply(prune=True) == {A: "none", B: "done", C: "none"}
    assert [fleet.stands(account) for account in (A, B, C)] == [URL, None, THEIRS]
    assert fleet.stands("0000999999-00001") == THEIRS
    assert B not in read_desired(fleet.accounts, fleet.inbox).gone()


def test_an_older_token_of_ours_is_updated_without_replace(fleet):
    """A URL with a token that was ours once is nobody else's."""
    fleet.inbox.add_token(TokenRecord("an-old-token-of-the-store", (), "retired"), 2)
    fleet.sandbox.register(A, TEMPLATE.replace("{token}", "an-old-token-of-the-store"))
    assert fleet.apply(A) == {A: "done"}
    assert fleet.stands() == URL


@pytest.mark.parametrize(
    ("account", "url", "allow_http", "said"),
    [
        (A, "http://fleet.example/x", False, "not https"),
        (A, "http://127.0.0.1:9000/x", True, None),
        (A, "https://fleet.example/x y", False, "a space"),
        (A, None, False, None),
        ("..", URL, False, "account must not be"),
    ],
)
def test_what_certainly_cannot_be_registered_is_known_before_any_call(account, url, allow_http, said):
    """The form of an account and of a URL need no provider to be judged."""
    flaw = flaw_of(account, url, allow_http=allow_http)
    assert flaw is None if said is None else said in flaw
