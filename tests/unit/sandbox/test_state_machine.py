"""Tokens, sessions, lock-out and listeners in any order, against a simple model of them, through any restart.

The model knows the documented figures by itself: an hour a token, twenty idle minutes a session, five refused logins.
Where the provider's documentation and ours leave an answer open, the model takes either.
"""

import json
import uuid
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from upcall.sandbox.state import AccessState, Credentials, Displaced

START = 1_700_000_000.0
HOUR = 3600.0
IDLE = 1200.0
REFUSALS = 5
USERNAME = "us\u00e9r"
PASSWORD = "right \u00fc"

clients = st.sampled_from(["client", "other client", "\u00e9"])
usernames = st.sampled_from([USERNAME, "somebody"])
accounts = st.sampled_from(["0000123456-00001", "0000123456-00002"])
versions = st.sampled_from(["v2", "v3"])
urls = st.sampled_from(["https://one.example/", "https://two.example/", "https://three.example/"])
# Half seconds are exact, so that an edge is an edge.
pauses = st.sampled_from([0.5, 1.0, 300.0, 599.5, 1199.5, 1200.0, 1800.5, 3598.0, 3600.0])
lives = st.sampled_from([None, 1.0, 96.0, 600.0, 1500.0, 5000.0])
FOREIGN_TOKENS = ["", "no-uuid", "6f1c0a3e-0000-4000-8000-000000000000", "\ud800"]


class TokenModel:
    """One bearer token: whose it is, when it dies, and whether it was given up before."""

    def __init__(self, client, dies_at):
        self.client = client
        self.dies_at = dies_at
        self.is_given_up = False

    def is_live(self, now):
        return not self.is_given_up and now < self.dies_at


class SessionModel:
    """One session: when it was used, and when it dies whatever happens."""

    def __init__(self, used_at, dies_at):
        self.used_at = used_at
        self.dies_at = dies_at
        self.is_over = False

    def is_live(self, now):
        is_in_time = self.dies_at is None or now < self.dies_at
        return not self.is_over and is_in_time and now < self.used_at + IDLE


class Access(RuleBasedStateMachine):
    """Drive an `AccessState` and the model side by side."""

    tokens = Bundle("tokens")
    sessions = Bundle("sessions")

    def __init__(self):
        super().__init__()
        self.now = START
        self.random = Random(1)
        self.credentials = Credentials(client_id="client", username=USERNAME, password=PASSWORD)
        self.state = AccessState(self.credentials)
        self.forget()
        self.all_tokens = {}
        self.all_sessions = {}

    def forget(self):
        """Be a model in which nothing has happened."""
        self.refusals = {}
        self.listeners = {}
        self.displaced = {}
        self.thefts = {}

    def token_of(self, client):
        """Return the token that a client was given last, where it has not been given up."""
        known = [token for token, model in self.all_tokens.items() if model.client == client and not model.is_given_up]
        return known[-1] if known else None

    # --- Time and restarts ---

    @rule(seconds=pauses)
    def time_passes(self, seconds):
        self.now += seconds

    @rule(which=st.integers(0, 20), offset=st.sampled_from([-1.0, -0.5, 0.0, 0.5]))
    def time_comes_to_an_edge(self, which, offset):
        """Move to where something dies, or to just before or after it."""
        edges = {model.dies_at for model in (*self.all_tokens.values(), *self.all_sessions.values())}
        edges |= {model.used_at + IDLE for model in self.all_sessions.values()}
        ahead = sorted(edge for edge in edges if edge is not None and edge + offset > self.now)
        if ahead:
            self.now = ahead[which % len(ahead)] + offset

    @rule()
    def the_process_is_restarted(self):
        self.state = self.restored()

    def restored(self):
        """Return a new state that was read from what this one wrote."""
        state = AccessState(self.credentials)
        state.restore(json.loads(json.dumps(self.state.to_dict())))
        return state

    @rule()
    def everything_is_cleared(self):
        self.state.clear()
        for model in self.all_tokens.values():
            model.is_given_up = True
        for model in self.all_sessions.values():
            model.is_over = True
        self.forget()

    # --- Bearer tokens ---

    @rule(target=tokens, client=clients)
    def issue_token(self, client):
        held = self.token_of(client)
        left = self.all_tokens[held].dies_at - self.now if held is not None else 0.0
        bearer, seconds = self.state.issue_token(client, self.now, self.random)
        if left > 1.0:
            assert bearer.token == held
        elif left <= 0.0 or bearer.token != held:  # in its last second a token may be replaced
            assert bearer.token not in self.all_tokens
            if held is not None:
                self.all_tokens[held].is_given_up = True
            self.all_tokens[bearer.token] = TokenModel(client, self.now + HOUR)
        model = self.all_tokens[bearer.token]
        assert bearer.expires_at == model.dies_at
        assert seconds == int(model.dies_at - self.now)
        assert str(uuid.UUID(bearer.token)) == bearer.token
        return bearer.token

    @rule(target=tokens, token=tokens, seconds=pauses)
    def ask_again_later(self, token, seconds):
        """Let the client of a token ask once more: by chance it happens too seldom."""
        self.now += seconds
        return self.issue_token(self.all_tokens[token].client)

    @rule(token=tokens)
    def revoke_token(self, token):
        model = self.all_tokens[token]
        is_held = token == self.token_of(model.client)
        revoked = self.state.revoke_token(model.client, token)
        if model.is_live(self.now):
            assert revoked
        elif not is_held:
            assert not revoked  # of one that has died by itself, either may be said
        model.is_given_up = True

    @rule(client=clients, token=tokens | st.sampled_from(FOREIGN_TOKENS))
    def revoke_what_is_not_held(self, client, token):
        if token != self.token_of(client):
            assert not self.state.revoke_token(client, token)

    @rule(token=tokens | st.sampled_from(FOREIGN_TOKENS))
    def drop_bearer(self, token):
        self.state.drop_bearer(token)
        if token in self.all_tokens:
            self.all_tokens[token].is_given_up = True

    # --- Sessions ---

    @rule(target=sessions, life=lives)
    def log_in(self, life):
        dies_at = None if life is None else self.now + life
        login = self.state.log_in(USERNAME, PASSWORD, self.now, self.random, dies_at=dies_at)
        if self.refusals.get(USERNAME, 0) >= REFUSALS:
            assert (login.session_token, login.locked) == (None, True)
            return multiple()
        assert not login.locked
        assert login.session_token not in self.all_sessions
        assert str(uuid.UUID(login.session_token)) == login.session_token
        self.refusals[USERNAME] = 0
        self.all_sessions[login.session_token] = SessionModel(self.now, dies_at)
        return login.session_token

    @rule(
        user=st.sampled_from([(USERNAME, "wrong"), ("somebody", "wrong"), ("somebody", PASSWORD)]),
        times=st.integers(1, 5),
    )
    def log_in_wrongly(self, user, times):
        for _ in range(times):
            self.refusals[user[0]] = self.refusals.get(user[0], 0) + 1
            login = self.state.log_in(*user, self.now, self.random)
            assert login.session_token is None
            assert login.locked is (self.refusals[user[0]] >= REFUSALS)

    @rule(target=sessions, times=st.integers(1, 4))
    def log_in_in_the_end(self, times):
        """Mistype a password before it is right: by chance it happens too seldom."""
        self.log_in_wrongly((USERNAME, "wrong"), times)
        return self.log_in(None)

    @rule(username=usernames)
    def unlock(self, username):
        assert self.state.unlock(username) is (self.refusals.pop(username, 0) > 0)

    @rule(session=sessions)
    def use_session(self, session):
        model = self.all_sessions[session]
        verdict = self.state.use_session(session, self.now)
        if model.is_live(self.now):
            assert verdict.error is None
            model.used_at = self.now
        else:
            assert verdict.error == "Expired"
            model.is_over = True

    @rule(session=sessions, times=st.integers(1, 4))
    def keep_a_session_alive(self, session, times):
        """Use a session again and again, just before it dies: by chance it happens too seldom."""
        for _ in range(times):
            self.now += IDLE - 0.5
            self.use_session(session)

    @rule(life=lives, is_used=st.booleans())
    def a_session_comes_to_its_end(self, life, is_used):
        """Look at a session half a second before its end, perhaps use it, and look then: by chance it is too seldom."""
        session = self.log_in(life)
        if isinstance(session, str):
            end = self.now + min(life or IDLE, IDLE)
            self.now = end - 0.5
            self.sessions_are_those_of_the_model()
            if is_used:
                self.use_session(session)
            self.now = end
            self.sessions_are_those_of_the_model()

    @rule()
    def use_no_session_of_ours(self):
        assert self.state.use_session("", self.now).error == "Format"
        assert self.state.use_session("no-uuid", self.now).error == "Invalid"
        assert self.state.use_session("6f1c0a3e-0000-4000-8000-000000000000", self.now).error == "Expired"

    @rule(session=consumes(sessions))
    def log_out(self, session):
        model = self.all_sessions[session]
        was_there = self.state.log_out(session)
        if model.is_live(self.now):
            assert was_there
        elif model.is_over:
            assert not was_there
        model.is_over = True
        assert self.state.use_session(session, self.now).error == "Expired"

    # --- Listeners ---

    @rule(account=accounts, url=urls, version=versions)
    def register(self, account, url, version):
        before = self.listeners.get((account, version))
        assert self.state.register(account, url, version, now=self.now) == before
        self.listeners[account, version] = url
        self.thefts.pop(account, None)
        if before not in {None, url}:
            self.displaced[account, version] = Displaced(before, self.now)

    @rule(account=accounts, version=versions)
    def deregister(self, account, version):
        before = self.listeners.pop((account, version), None)
        assert self.state.deregister(account, version, now=self.now) is (before is not None)
        self.thefts.pop(account, None)
        if before is not None:
            self.displaced[account, version] = Displaced(before, self.now)

    @rule(account=accounts, seconds=pauses)
    def plan_theft(self, account, seconds):
        self.state.plan_theft(account, self.now + seconds)
        self.thefts[account] = self.now + seconds

    # --- What holds at any moment ---

    @invariant()
    def tokens_are_those_of_the_model(self):
        for token, model in self.all_tokens.items():
            assert self.state.is_bearer(token, self.now) is model.is_live(self.now)
        for token in FOREIGN_TOKENS:
            assert not self.state.is_bearer(token, self.now)

    @invariant()
    def a_client_has_one_live_token_at_most(self):
        live = [model.client for token, model in self.all_tokens.items() if self.state.is_bearer(token, self.now)]
        assert len(live) == len(set(live))

    @invariant()
    def what_is_written_is_read_again(self):
        assert self.restored().to_dict() == self.state.to_dict()

    @invariant()
    def sessions_are_those_of_the_model(self):
        copy = self.restored()  # asking extends a session: a copy is asked
        for session, model in self.all_sessions.items():
            assert copy.use_session(session, self.now).error == (None if model.is_live(self.now) else "Expired")

    @invariant()
    def a_locked_user_gets_no_session(self):
        for username, refusals in self.refusals.items():
            if refusals >= REFUSALS:
                login = self.state.log_in(username, PASSWORD, self.now, self.random)
                assert (login.session_token, login.locked) == (None, True)

    @invariant()
    def listeners_are_those_of_the_model(self):
        for account in ("0000123456-00001", "0000123456-00002", "0000123456-00003"):
            for version in ("v2", "v3"):
                assert self.state.listener(account, version) == self.listeners.get((account, version))
                assert self.state.displaced(account, version) == self.displaced.get((account, version))
            assert self.state.listener(account) == self.listeners.get((account, "v2"))

    @invariant()
    def thefts_are_those_of_the_model(self):
        assert self.state.thefts() == self.thefts
        for account, at in self.thefts.items():
            assert self.state.is_theft_due(account, at)
            assert not self.state.is_theft_due(account, at + 1.0)
            assert not self.state.is_theft_due("0000123456-00003", at)


TestAccess = Access.TestCase
TestAccess.settings = settings(max_examples=200, stateful_step_count=50)
