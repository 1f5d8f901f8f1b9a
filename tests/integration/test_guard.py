"""The guard against the sandbox: what it tells, what it takes back, and what it leaves."""

import asyncio
import contextlib
import json
import logging

import msgspec
import pytest

from upcall.errors import StartError
from upcall.inbox import Arrival, TokenRecord, Uptime, open_inbox
from upcall.listener import Token
from upcall.registration import registration_lock
from upcall.registration.alerts import EVENT_KIND
from upcall.registration.audit import TOPIC as AUDIT
from upcall.registration.doctor import Looker
from upcall.registration.figures import STATES, families
from upcall.registration.guard import TOPIC, watch
from upcall.registration.guarding import open_guard
from upcall.settings import Account, Credentials, GuardSettings, Settings
from upcall.testing.transport import AsyncInProcess

A, B = "0000123456-00001", "0000123456-00002"
TEMPLATE = "https://fleet.example:50559/callbacks/{token}"
TOKEN = "token-of-this-very-store"
URL = TEMPLATE.replace("{token}", TOKEN)
THEIRS = "https://another.example:50559/callbacks/secret-of-theirs"
FIVE_MINUTES = 300


class Post:
    """Be the company's chat: take alerts, or refuse them."""

    def __init__(self):
        self.texts = []
        self.status = 200
        self.tries = 0

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        self.tries += 1
        if self.status == 200:
            self.texts.append(json.loads(body)["text"])
        writer.write(b"HTTP/1.1 %d Odd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % self.status)
        writer.close()


class Place:
    """Hold a store, a sandbox, and the guards over them."""

    def __init__(self, sandbox, inbox, directory):
        self.sandbox = sandbox
        self.inbox = inbox
        self.post = Post()
        self.waits = []
        self.clients = []
        self.addresses = []
        self.settings = Settings(
            credentials=Credentials(),
            state_dir=directory / "state",
            accounts=(Account(name=A, url=TEMPLATE), Account(name=B, url=TEMPLATE)),
            guard=GuardSettings(),
        )

    def looker(self):
        """Look at names that have no address: what only this machine sees is a warning, and costs no time."""
        return Looker(resolver=lambda host: self.addresses)

    def now(self):
        return int(self.sandbox.now.timestamp() * 1e6)

    def guard(self, **options):
        def make_client(name):
            self.clients.append(name)
            return self.sandbox.client(max_retries=0)

        options = {"make_client": make_client, "now": self.now, "make_looker": self.looker} | options
        return open_guard(self.settings, self.inbox, **options)

    async def rounds(self, count=1, **options):
        """Make rounds five minutes apart; return the states after each."""
        states = []
        async with self.guard(**options) as guard:
            for _ in range(count):
                await self.sandbox.advance(FIVE_MINUTES)
                states.append({one.account: one.watch.state for one in await guard.round()})
        return states

    async def look(self, **options):
        """Make one round; return how account A stands, and why it was left so."""
        await self.sandbox.advance(FIVE_MINUTES)
        async with self.guard(**options) as guard:
            (seen, *_) = await guard.round()
        return seen.watch.state, seen.left

    async def stands(self, account=A):
        async with self.sandbox.client() as client:
            return (await client.callbacks.list_registered_callbacks(account)).url

    def changes(self, account=A):
        entries = self.inbox.journal(TOPIC, account=account)
        return [(entry.document["from"], entry.document["to"]) for entry in entries]

    def events(self):
        return [msgspec.json.decode(record.body) for record in self.inbox.callbacks() if record.origin == "guard"]

    def audit(self, account=A):
        return [
            (entry.document["by"], entry.document["action"], entry.document["outcome"])
            for entry in self.inbox.journal(AUDIT, account=account)
        ]


@pytest.fixture
def place(async_thingspace_sandbox, tmp_path):
    with open_inbox(f"sqlite:///{tmp_path / 'inbox.db'}", create=True) as inbox:
        inbox.add_token(TokenRecord(TOKEN, ()), 1)
        for account in (A, B):
            async_thingspace_sandbox.register(account, URL)
        yield Place(async_thingspace_sandbox, inbox, tmp_path)


async def test_a_stolen_registration_is_told_once_and_its_end_once(place):
    """However often the guard looks, subscribers and the journal hear of each change once."""
    await place.rounds()
    place.sandbox.register(A, THEIRS)
    assert await place.rounds(3) == [{A: "drifted", B: "in_order"}] * 3
    place.sandbox.register(A, URL)
    await place.rounds(2)
    assert place.changes() == [("in_order", "drifted"), ("drifted", "in_order")]
    assert place.changes(B) == []
    assert [(event["type"], event["accountName"], event["state"]) for event in place.events()] == [
        (EVENT_KIND, A, "drifted"),
        (EVENT_KIND, A, "in_order"),
    ]


async def test_the_sandbox_s_own_thief_is_seen_within_one_interval(place):
    """What the fault `stolen` does some minutes after a registration is drift at the next look."""
    place.sandbox.set_faults(stolen=1.0)
    async with place.sandbox.client() as client:
        await client.callbacks.update_callback(A, {"url": URL})
    states = await place.rounds(4)
    assert states[-1][A] == "drifted"
    assert place.changes() == [("in_order", "drifted")] or place.changes() == [("unknown", "drifted")]


async def test_a_slot_that_was_emptied_is_told(place):
    """Nothing registered is another trouble than somebody else's URL."""
    await place.rounds()
    async with place.sandbox.client() as client:
        await client.callbacks.deregister_callback(A)
    assert await place.look() == ("none", None)
    assert place.events()[-1]["state"] == "none"


async def test_the_journal_holds_whole_urls_and_the_event_masks_them(place, caplog):
    """The audit must tell exactly what stood; a log line and a subscriber must not leak a token."""
    caplog.set_level(logging.DEBUG, "upcall.guard")
    await place.rounds()
    ok_at = place.now()
    place.sandbox.register(A, THEIRS)
    await place.rounds()
    (entry,) = place.inbox.journal(TOPIC)
    assert (entry.document["registered"], entry.document["desired"]) == (THEIRS, URL)
    assert entry.document["last_ok"] == ok_at
    (event,) = place.events()
    told = json.dumps(event) + caplog.text
    assert TOKEN not in told
    assert "secret-of-theirs" not in told
    assert "another.example" in event["registered"]
    assert f"upcall apply {A} --replace" in caplog.text


async def test_the_note_bounds_the_window_in_which_callbacks_went_elsewhere(place):
    """Each round keeps when all was last well, and a round in which it is not leaves that alone."""
    await place.rounds(2)
    well = place.now()
    place.sandbox.register(A, THEIRS)
    await place.rounds(2)
    notes = {note.key: note.document for note in place.inbox.notes(TOPIC)}
    assert notes[A]["last_ok"] == well
    assert notes[B]["last_ok"] == place.now()
    assert (notes[A]["state"], notes[A]["registered"], notes[A]["desired"]) == ("drifted", THEIRS, URL)


@pytest.mark.parametrize("fault", ["server_error", "html", "reset", "unauthorized"])
async def test_a_provider_in_trouble_is_told_after_three_rounds_and_once(place, fault):
    """One account that cannot be read is no drift, whatever comes in the place of an answer."""
    await place.rounds()
    place.sandbox.set_faults(A, **{fault: 1.0})
    states = [one[A] for one in await place.rounds(5)]
    assert states == ["in_order", "in_order", "unreachable", "unreachable", "unreachable"]
    place.sandbox.set_faults()
    assert await place.look() == ("in_order", None)
    assert place.changes() == [("in_order", "unreachable"), ("unreachable", "in_order")]


async def test_a_session_that_dies_between_calls_is_nobody_s_trouble(place):
    """The client logs in again, and the round is a round like any other."""
    place.sandbox.set_faults(session_dead=1.0)
    assert await place.rounds(4) == [{A: "in_order", B: "in_order"}] * 4
    assert place.changes() == []


async def test_reassert_takes_back_what_was_ours(place):
    """The slot is ours again within the round, the audit says by whom, and both changes are told."""
    await place.rounds(reassert=True)
    place.sandbox.register(A, THEIRS)
    assert await place.look(reassert=True) == ("in_order", None)
    assert await place.stands() == URL
    assert place.audit() == [("guard", "replace", "begun"), ("guard", "replace", "done")]
    assert place.changes() == [("in_order", "drifted"), ("drifted", "in_order")]
    assert [event["takenBack"] for event in place.events()] == [False, True]


async def test_what_only_this_machine_sees_warns_and_with_strict_refuses(place, caplog):
    """A name that does not resolve here may resolve elsewhere: the slot is taken back, unless --strict was given."""
    await place.rounds(reassert=True)
    place.sandbox.register(A, THEIRS)
    state, left = await place.look(reassert=True, strict=True)
    assert state == "drifted"
    assert "fleet.example" in left
    assert await place.stands() == THEIRS
    assert await place.look(reassert=True) == ("in_order", None)
    assert f"dns of {A}: fleet.example" in caplog.text
    assert TOKEN not in caplog.text


async def test_drift_is_told_before_anything_is_mended(place):
    """A look at the URL and a write may take their time: whoever is to know of a theft knows it before."""
    await place.rounds(reassert=True)
    place.sandbox.register(A, THEIRS)
    told = []

    async def preflight(targets):
        told.extend(place.changes())
        told.extend(event["state"] for event in place.events())
        return {}

    async with place.guard(reassert=True) as guard:
        guard.preflight = preflight
        await guard.round()
    assert told == [("in_order", "drifted"), "drifted"]
    assert [event["state"] for event in place.events()] == ["drifted", "in_order"]


async def test_reassert_registers_a_slot_that_was_emptied(place):
    """A slot of ours in which nothing stands harms nobody when it is filled."""
    await place.rounds(reassert=True)
    async with place.sandbox.client() as client:
        await client.callbacks.deregister_callback(A)
    assert await place.look(reassert=True) == ("in_order", None)
    assert place.audit() == [("guard", "register", "begun"), ("guard", "register", "done")]


async def test_the_third_theft_within_a_day_is_left(place, caplog):
    """Twice the slot is taken back; then the guard says loudly who writes there, and stops writing."""
    await place.rounds(reassert=True)
    for _ in range(2):
        place.sandbox.register(A, THEIRS)
        assert await place.look(reassert=True) == ("in_order", None)
    place.sandbox.register(A, THEIRS)
    caplog.set_level(logging.ERROR, "upcall.guard")
    state, left = await place.look(reassert=True)
    assert (state, await place.stands()) == ("given_up", THEIRS)
    assert "upcall apply --replace" in left
    assert "by another.example" in caplog.text
    assert (await place.look(reassert=True))[0] == "given_up"
    assert len(place.audit()) == 4
    place.sandbox.register(A, URL)
    assert await place.look(reassert=True) == ("in_order", None)


async def test_a_slot_that_was_never_ours_is_left(place):
    """A fresh settings file must not let a guard take what another system owns."""
    place.sandbox.register(A, THEIRS)
    state, left = await place.look(reassert=True)
    assert (state, await place.stands(), place.audit()) == ("drifted", THEIRS, [])
    assert "not ours before" in left


async def test_an_older_url_of_ours_is_left_to_apply(place):
    """Drift that we made ourselves is no theft: a person changes it, with a plan before."""
    await place.rounds(reassert=True)
    place.inbox.add_token(TokenRecord("an-old-token-of-the-store", (), "retired"), 2)
    place.sandbox.register(A, TEMPLATE.replace("{token}", "an-old-token-of-the-store"))
    state, left = await place.look(reassert=True)
    assert state == "drifted"
    assert "upcall apply" in left
    assert place.audit() == []


async def test_a_url_that_no_listener_accepts_is_not_written(place):
    """Taking a slot back for a token that is refused would lose what the other system at least kept."""
    await place.rounds(reassert=True)

    def beat(token):
        place.inbox.beat(Uptime(listener="one", began_at=1, last_at=place.now(), tokens=(Token(token).id,)))

    place.sandbox.register(A, THEIRS)
    await place.sandbox.advance(FIVE_MINUTES)
    beat("another-token-than-ours")
    async with place.guard(reassert=True) as guard:
        (seen, _) = await guard.round()
        assert "no listener accepts" in seen.left
        beat(TOKEN)
        (seen, _) = await guard.round()
    assert (seen.watch.state, await place.stands()) == ("in_order", URL)


async def test_http_is_not_written_where_it_is_not_admitted(place):
    """What is certainly refused by the provider is not sent, by a guard either."""
    await place.rounds(reassert=True)
    plain = (Account(name=A, url="http://127.0.0.1:8080/callbacks/{token}"),)
    place.settings = msgspec.structs.replace(place.settings, accounts=plain)
    place.sandbox.register(A, THEIRS)
    _, left = await place.look(reassert=True)
    assert "not https" in left


async def test_a_write_that_fails_is_tried_again_in_the_next_round(place):
    """The provider's trouble in the moment of taking back costs one interval, and no theft is counted for it."""
    await place.rounds(reassert=True)
    place.sandbox.register(A, THEIRS)
    harness = place.sandbox._harness

    class Refusing(AsyncInProcess):
        async def handle_async_request(self, request):
            if request.method == "PUT":
                request.headers["Authorization"] = "Bearer nobody"
            return await super().handle_async_request(request)

    def refused(name):
        return place.sandbox.client(max_retries=0, transport=Refusing(harness._sandbox, harness._loop))

    state, left = await place.look(reassert=True, make_client=refused)
    assert state == "drifted"
    assert "could not be taken back" in left
    assert place.audit()[-1] == ("guard", "replace", "failed")
    assert await place.look(reassert=True) == ("in_order", None)
    (note, _) = place.inbox.notes(TOPIC)
    assert len(note.document["thefts"]) == 1


async def test_taken_again_at_once_counts_as_another_theft(place):
    """A thief that answers each write within the same second is given up on, not fought for ever."""
    await place.rounds(reassert=True)
    harness = place.sandbox._harness

    class Racing(AsyncInProcess):
        async def handle_async_request(self, request):
            answer = await super().handle_async_request(request)
            if request.method == "PUT":
                await asyncio.to_thread(place.sandbox.register, A, THEIRS)
            return answer

    def raced(name):
        return place.sandbox.client(max_retries=0, transport=Racing(harness._sandbox, harness._loop))

    place.sandbox.register(A, THEIRS)
    assert await place.look(reassert=True, make_client=raced) == ("drifted", "it was taken again at once")
    state, _ = await place.look(reassert=True, make_client=raced)
    assert state == "given_up"
    assert await place.stands() == THEIRS


async def test_a_rotation_under_way_is_no_drift(place):
    """A URL with the next token is in order, and stays so when that token has become the live one."""
    await place.rounds()
    following = "the-token-that-comes-next"
    place.inbox.add_token(TokenRecord(following, (), "next"), 2)
    place.sandbox.register(A, TEMPLATE.replace("{token}", following))
    assert await place.look(reassert=True) == ("in_order", None)
    place.inbox.set_token(TOKEN, state="retiring", retire_at=10, now=3)
    place.inbox.set_token(following, state="live", retire_at=None, now=3)
    states = await place.rounds(reassert=True)
    assert states == [{A: "in_order", B: "drifted"}]
    assert place.audit(B) == []


async def test_an_apply_under_way_is_waited_for(place):
    """While another writer is at the registrations nobody knows what should stand: the round is put off."""
    place.settings.state_dir.mkdir()
    with registration_lock(place.settings.state_dir, "apply"), pytest.raises(StartError, match="upcall apply"):
        await place.rounds()
    assert place.inbox.notes(TOPIC) == []


async def test_what_was_brought_in_order_meanwhile_is_not_told(place):
    """What looks like drift is read again under the lock, so an `apply` in between is no alert."""
    await place.rounds()
    place.sandbox.register(A, THEIRS)
    async with place.guard() as guard:
        read = guard.read

        async def read_then_applied(targets):
            found = await read(targets)
            place.sandbox.register(A, URL)
            return found

        guard.read = read_then_applied
        (seen, _) = await guard.round()
    assert (seen.watch.state, place.changes()) == ("in_order", [])


async def test_two_guards_write_once(place):
    """Whichever comes first takes the slot back; the other one finds it in order, and tells nobody again."""
    await place.rounds(reassert=True)
    place.sandbox.register(A, THEIRS)
    await place.sandbox.advance(FIVE_MINUTES)
    async with place.guard(reassert=True, wait_seconds=0.0) as one, place.guard(reassert=True) as other:
        ends = await asyncio.gather(one.round(), other.round(), return_exceptions=True)
        for end in ends:
            assert isinstance(end, StartError | list)
        await other.round()
    assert place.audit() == [("guard", "replace", "begun"), ("guard", "replace", "done")]
    assert place.changes() == [("in_order", "drifted"), ("drifted", "in_order")]


async def test_a_url_that_cannot_be_made_is_said(place, caplog):
    """An account that no token fits is not watched, and the guard says why, once."""
    other = (*place.settings.accounts, Account(name="0000123456-00009"))
    place.settings = msgspec.structs.replace(place.settings, accounts=other)
    place.inbox.set_token(TOKEN, state="retired", retire_at=None, now=2)
    async with place.guard() as guard:
        await guard.round()
        seen = await guard.round()
    assert [(one.account, one.watch.state) for one in seen] == [(A, "unknown"), (B, "unknown")]
    assert "UPCALL_TOKENS" in seen[0].problem
    said = [record.message for record in caplog.records if "is not watched" in record.message]
    assert [text.partition(" ")[0] for text in said] == [A, B]
    assert place.inbox.url in said[0]


async def test_one_client_a_set_of_credentials(place):
    """However many accounts share credentials, one client logs in for them."""
    accounts = tuple(
        Account(name=f"0000123456-{number:05}", url=TEMPLATE, credentials="east" if number % 2 else "west")
        for number in range(10)
    )
    place.settings = msgspec.structs.replace(place.settings, accounts=accounts)
    await place.rounds(2)
    assert sorted(place.clients) == ["east", "west"]


@contextlib.asynccontextmanager
async def chat(place):
    """Serve the chat that alerts go to."""
    server = await asyncio.start_server(place.post.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    place.settings = msgspec.structs.replace(place.settings, alert_url=f"http://127.0.0.1:{port}/hook/secret-path")
    async with server:
        yield


async def test_alerts_are_posted_as_text(place):
    """The alerts' URL gets one line a change, in the form that chats take."""
    async with chat(place):
        await place.rounds(patience_seconds=10.0)
        place.sandbox.register(A, THEIRS)
        await place.rounds(2, patience_seconds=10.0)
    (text,) = place.post.texts
    assert text.startswith(f"Upcall: {A}: callbacks go to https://another.example:50559/callbacks/secr***")


async def test_an_alerts_url_that_is_not_there_is_said(place, caplog):
    """Whoever names a variable that is not set hears that nobody will be paged."""
    place.settings = msgspec.structs.replace(place.settings, alert_source="HOOK_URL")
    async with place.guard():
        pass
    assert "alerts are posted nowhere: [alerts] names HOOK_URL" in caplog.text


async def test_an_alerts_url_that_fails_stops_nothing(place, caplog):
    """It is tried a few times, then given up with one line that does not show the URL; the round is a round."""
    place.post.status = 503
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    async with chat(place):
        place.sandbox.register(A, THEIRS)
        async with place.guard(patience_seconds=10.0) as guard:
            guard.alerts._poster._sleep = sleep
            await guard.round()
            figures = guard.figures
    assert place.post.tries == 5
    assert len(waits) == 4
    assert figures.failed_alerts == 1
    assert caplog.text.count("did not reach 127.0.0.1: it answered 503") == 1
    assert "secret-path" not in caplog.text
    assert place.changes() == [("unknown", "drifted")]


async def test_figures_count_accounts_by_state_and_name_none(place):
    """What is scraped says how many accounts stand how, and which is nobody's business there."""
    place.sandbox.register(A, THEIRS)
    async with place.guard() as guard:
        await guard.round()
        text = {
            (sample.name, sample.labels.get("state")): sample.value
            for family in families(guard.figures)
            for sample in family.samples
        }
    assert {state: text["upcall_registration_accounts", state] for state in STATES} == {
        **dict.fromkeys(STATES, 0.0),
        "in_order": 1.0,
        "drifted": 1.0,
    }
    assert text["upcall_registration_transitions_total", None] == 1.0
    assert text["upcall_registration_last_round_timestamp_seconds", None] == place.now() / 1e6


async def test_rounds_go_on_with_jitter_whatever_fails(place, caplog):
    """The first round is made at once, each pause is a tenth more or less, and a store that fails costs its rounds."""
    waits, seen = [], []

    class EnoughError(Exception):
        pass

    async def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 4:
            raise EnoughError
        await place.sandbox.advance(seconds)

    chances = iter((0.0, 0.5, 0.5, 0.99))
    async with place.guard() as guard:
        whole, failing = guard.round, iter((False, True, True, False))

        async def round_of():
            if next(failing):
                raise OSError(28, "No space left on device")
            return await whole()

        guard.round = round_of
        with pytest.raises(EnoughError):
            await watch(guard, every_seconds=300.0, on_round=seen.append, sleep=sleep, chance=lambda: next(chances))
        assert guard.figures.failed_rounds == 2
    assert waits == pytest.approx([270.0, 300.0, 300.0, 329.4])
    assert len(seen) == 2
    assert caplog.text.count("No space left") == 1


async def test_another_writer_is_waited_for_briefly(place):
    """A round that was put off is made some seconds later, not a whole interval."""
    waits = []

    class EnoughError(Exception):
        pass

    async def sleep(seconds):
        waits.append(seconds)
        raise EnoughError

    place.settings.state_dir.mkdir()
    async with place.guard() as guard:
        with registration_lock(place.settings.state_dir, "apply"), pytest.raises(EnoughError):
            await watch(guard, every_seconds=300.0, sleep=sleep, chance=lambda: 0.5)
    assert waits == [10.0]


async def test_no_callback_triggers_a_write(place):
    """What anybody may send unsigned, a forged drift included, makes no round and no write."""
    await place.rounds(reassert=True)
    place.inbox.append([Arrival(b'{"type": "registration.drift", "accountName": "%s"}' % A.encode(), place.now())])
    await place.rounds(2, reassert=True)
    assert place.audit() == []
    assert [record.origin for record in place.inbox.callbacks()] == ["received"]
