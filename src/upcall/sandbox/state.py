"""Who may call, and where callbacks go: tokens, sessions and listeners, decided without I/O.

The time and the randomness are arguments, so that a test needs neither clock nor patience.
"""

from __future__ import annotations

import hmac
import uuid
from typing import Any, Final, Protocol

import msgspec

__all__ = [
    "LOCK_OUT_AT",
    "SESSION_IDLE_SECONDS",
    "TOKEN_SECONDS",
    "AccessState",
    "Bearer",
    "Credentials",
    "Displaced",
    "Login",
    "Randomness",
    "Session",
    "SessionVerdict",
]

TOKEN_SECONDS: Final = 3600.0
"""How long a bearer token lives from its first issue. Source: "Get credentials" (documented)."""

SESSION_IDLE_SECONDS: Final = 1200.0
"""How long a session lives without use. Source: "Start connectivity management session" (documented)."""

LOCK_OUT_AT: Final = 5
"""Refused logins in a row that lock a user name. Source: the same page (documented)."""


class Randomness(Protocol):
    """Say what a decision needs of a random source, such as `random.Random`."""

    def getrandbits(self, bits: int, /) -> int:
        """Return an integer of so many random bits."""
        ...

    def random(self) -> float:
        """Return a number from 0 up to 1."""
        ...

    def randrange(self, stop: int, /) -> int:
        """Return an integer from 0 up to `stop`."""
        ...


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the four values that the sandbox accepts; `repr` shows none of them.

    Args:
        client_id: The OAuth2 key.
        client_secret: The OAuth2 secret.
        username: The UWS user name.
        password: Its password.
    """

    client_id: str = "sandbox"
    client_secret: str = "sandbox"  # noqa: S105 - printed in the documentation
    username: str = "sandbox"
    password: str = "sandbox"  # noqa: S105 - printed in the documentation

    def __repr__(self) -> str:
        return "Credentials(…)"

    def is_client(self, client_id: str, client_secret: str) -> bool:
        """Tell whether a key and a secret are the ones accepted."""
        return _same(client_id, self.client_id) & _same(client_secret, self.client_secret)

    def is_user(self, username: str, password: str) -> bool:
        """Tell whether a user name and a password are the ones accepted."""
        return _same(username, self.username) & _same(password, self.password)


class Bearer(msgspec.Struct, frozen=True):
    """Hold the bearer token of a client.

    Args:
        token: The token.
        expires_at: When it dies, in seconds of the sandbox's clock.
    """

    token: str
    expires_at: float


class Session(msgspec.Struct, frozen=True):
    """Hold one VZ-M2M session.

    Args:
        username: Who logged in.
        used_at: When it was last used, in seconds of the sandbox's clock.
        dies_at: When it dies whatever happens; None where nothing is wrong with it.
    """

    username: str
    used_at: float
    dies_at: float | None = None

    def is_dead(self, now: float) -> bool:
        """Tell whether it was not used for too long, or is over its time."""
        return now - self.used_at >= SESSION_IDLE_SECONDS or (self.dies_at is not None and now >= self.dies_at)


class Displaced(msgspec.Struct, frozen=True):
    """Hold what was registered before.

    Args:
        url: The URL.
        at: When it was displaced or removed, in seconds of the sandbox's clock.
    """

    url: str
    at: float


class Login(msgspec.Struct, frozen=True):
    """Hold what became of a login.

    Args:
        session_token: The new session's token, None where the login was refused.
        locked: Whether the user name is locked.
    """

    session_token: str | None = None
    locked: bool = False


class SessionVerdict(msgspec.Struct, frozen=True):
    """Hold whether a session may call.

    Args:
        error: None where it may, else the provider's word: ``Format``, ``Invalid`` or ``Expired``.
    """

    error: str | None = None


class AccessState:
    """Keep tokens, sessions, refused logins and listeners.

    Args:
        credentials: The four accepted values.
    """

    def __init__(self, credentials: Credentials | None = None) -> None:
        self.credentials: Credentials = credentials or Credentials()
        self._bearers: dict[str, Bearer] = {}
        self._sessions: dict[str, Session] = {}
        self._refusals: dict[str, int] = {}
        self._listeners: dict[str, str] = {}
        self._displaced: dict[str, Displaced] = {}
        self._thefts: dict[str, float] = {}

    def issue_token(self, client_id: str, now: float, random: Randomness) -> tuple[Bearer, int]:
        """Return the client's bearer token and the whole seconds that it still lives.

        Asking again within the hour gives the same token. That the seconds then count down is assumed.

        Args:
            client_id: Whose token.
            now: Seconds of the sandbox's clock.
            random: Where a new token comes from.

        Source: "Get credentials" (documented; the countdown is not).
        """
        bearer = self._bearers.get(client_id)
        if bearer is None or bearer.expires_at <= now + 1:
            bearer = Bearer(str(_uuid(random)), now + TOKEN_SECONDS)
            self._bearers[client_id] = bearer
        return bearer, int(bearer.expires_at - now)

    def revoke_token(self, client_id: str, token: str) -> bool:
        """Forget a client's token; return whether it was the live one."""
        bearer = self._bearers.get(client_id)
        if bearer is None or not _same(token, bearer.token):
            return False
        del self._bearers[client_id]
        return True

    def is_bearer(self, token: str, now: float) -> bool:
        """Tell whether a bearer token is live."""
        return any(_same(token, bearer.token) and bearer.expires_at > now for bearer in self._bearers.values())

    def log_in(
        self, username: str, password: str, now: float, random: Randomness, *, dies_at: float | None = None
    ) -> Login:
        """Start a session, or count a refusal; five in a row lock the user name for good.

        Args:
            username: The UWS user name.
            password: Its password.
            now: Seconds of the sandbox's clock.
            random: Where the session's token comes from.
            dies_at: When the session dies, however it is used; None where a fault does not say so.

        Source: "Start connectivity management session" (documented).
        """
        refusals = self._refusals.get(username, 0)
        if refusals >= LOCK_OUT_AT:
            return Login(locked=True)
        if not self.credentials.is_user(username, password):
            self._refusals[username] = refusals + 1
            return Login(locked=refusals + 1 >= LOCK_OUT_AT)
        self._refusals.pop(username, None)
        self._drop_dead_sessions(now)
        token = str(_uuid(random))
        self._sessions[token] = Session(username, now, dies_at)
        return Login(token)

    def log_out(self, session_token: str) -> bool:
        """End a session; return whether there was one."""
        return self._sessions.pop(session_token, None) is not None

    def use_session(self, session_token: str, now: float) -> SessionVerdict:
        """Check a session and extend it by this use.

        Args:
            session_token: The ``VZ-M2M-Token`` header, empty where there is none.
            now: Seconds of the sandbox's clock.

        Source: idle time documented; the codes are those of Connectivity Management (documented there).
        """
        if not session_token:
            return SessionVerdict("Format")
        session = self._sessions.get(session_token)
        if session is None:
            return SessionVerdict("Expired" if _is_uuid(session_token) else "Invalid")
        if session.is_dead(now):
            del self._sessions[session_token]
            return SessionVerdict("Expired")
        self._sessions[session_token] = msgspec.structs.replace(session, used_at=now)
        return SessionVerdict()

    def unlock(self, username: str) -> bool:
        """Forget a user name's refused logins, as the provider's support does; return whether there were any."""
        return self._refusals.pop(username, None) is not None

    def listener(self, account: str, version: str = "v2") -> str | None:
        """Return the URL registered for an account, None where none is."""
        return self._listeners.get(f"{version}/{account}")

    def register(self, account: str, url: str, version: str = "v2", *, now: float = 0.0) -> str | None:
        """Register a URL in place of any other; return the one that it displaced.

        Args:
            account: Whose listener.
            url: The URL.
            version: Of the API: each has a listener of its own.
            now: Seconds of the sandbox's clock.
        """
        self._thefts.pop(account, None)
        displaced = self._listeners.get(f"{version}/{account}")
        self._listeners[f"{version}/{account}"] = url
        if displaced is not None and displaced != url:
            self._displaced[f"{version}/{account}"] = Displaced(displaced, now)
        return displaced

    def deregister(self, account: str, version: str = "v2", *, now: float = 0.0) -> bool:
        """Forget an account's listener; return whether there was one."""
        self._thefts.pop(account, None)
        removed = self._listeners.pop(f"{version}/{account}", None)
        if removed is not None:
            self._displaced[f"{version}/{account}"] = Displaced(removed, now)
        return removed is not None

    def displaced(self, account: str, version: str = "v2") -> Displaced | None:
        """Return what was registered before the present listener, None where nothing was."""
        return self._displaced.get(f"{version}/{account}")

    def plan_theft(self, account: str, at: float) -> None:
        """Have an account's listener displaced at a time, unless it changes before."""
        self._thefts[account] = at

    def thefts(self) -> dict[str, float]:
        """Return when each listener is displaced, of those that will be."""
        return dict(self._thefts)

    def is_theft_due(self, account: str, at: float) -> bool:
        """Tell whether an account's listener is still to be displaced at that time."""
        return self._thefts.get(account) == at

    def drop_bearer(self, token: str) -> None:
        """Let a bearer token die."""
        self._bearers = {client: bearer for client, bearer in self._bearers.items() if not _same(token, bearer.token)}

    def clear(self) -> None:
        """Forget every token, session, refused login and listener."""
        for kept in (self._bearers, self._sessions, self._refusals, self._listeners, self._displaced, self._thefts):
            kept.clear()

    def to_dict(self) -> dict[str, Any]:
        """Return all but the credentials as plain values, for a state file."""
        return {
            "bearers": msgspec.to_builtins(self._bearers),
            "sessions": msgspec.to_builtins(self._sessions),
            "refusals": dict(self._refusals),
            "listeners": dict(self._listeners),
            "displaced": msgspec.to_builtins(self._displaced),
            "thefts": dict(self._thefts),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what `to_dict` returned.

        Args:
            saved: The plain values.

        Raises:
            msgspec.ValidationError: They are not what `to_dict` returns.
        """
        self._bearers = msgspec.convert(saved.get("bearers", {}), dict[str, Bearer])
        self._sessions = msgspec.convert(saved.get("sessions", {}), dict[str, Session])
        self._refusals = msgspec.convert(saved.get("refusals", {}), dict[str, int])
        self._listeners = msgspec.convert(saved.get("listeners", {}), dict[str, str])
        self._displaced = msgspec.convert(saved.get("displaced", {}), dict[str, Displaced])
        self._thefts = msgspec.convert(saved.get("thefts", {}), dict[str, float])

    def _drop_dead_sessions(self, now: float) -> None:
        for token in [token for token, held in self._sessions.items() if held.is_dead(now)]:
            del self._sessions[token]


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def _uuid(random: Randomness) -> uuid.UUID:
    return uuid.UUID(int=random.getrandbits(128), version=4)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
