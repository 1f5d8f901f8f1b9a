"""The login latch: a refused login is not sent again, by this process or the next.

Five refusals in a row lock the account at the provider until its support unlocks it. So refusals are counted for
each base URL and user name: one a password and two in all; after that every login is refused here. Before a login
is sent it is claimed, so that ten processes that start together do not spend ten refusals at once. A login that got
no answer, or whose process was killed, may have been refused: it counts like a refusal of that user name, unless its
password was accepted before.

Source: "Start connectivity management session", five consecutive failures lock the record (documented).
"""

from __future__ import annotations

import enum
import hashlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.client.statefile import DamagedError, StateFile, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["MAX_REFUSALS", "Claim", "Entry", "LatchState", "LoginLatch", "Pending", "Refusal", "Verdict", "decide"]

MAX_REFUSALS: Final = 2
"""How many of the provider's five we spend on one user name."""


class Verdict(enum.Enum):
    """Name what the latch says of a login, and why."""

    FREE = "it may be sent"
    BUSY = "another login of this user is on its way"
    SAME_PASSWORD = "the provider refused this user name with this password before"  # noqa: S105 - a sentence
    TWICE = "the provider refused this user name twice"
    UNANSWERED = "logins of this user name got no answer, and may have been refused"
    UNKNOWN = "the count of refused logins cannot be read"


class Pending(msgspec.Struct, frozen=True):
    """Hold a login that was claimed and has not ended.

    Args:
        id: The claim.
        fingerprint: Of its password.
        pid: The process that claimed it.
        until: When it is over in any case, in seconds since 1970.
    """

    id: str
    fingerprint: str
    pid: int
    until: float


class Entry(msgspec.Struct, frozen=True):
    """Hold what is known of one user name at one base URL.

    Args:
        refused: The fingerprint of each refused password, one for each refusal.
        pending: The logins on their way.
        unanswered: How many logins got no answer since the last one that did.
        accepted: The fingerprint of the password that the provider accepted last.
    """

    refused: tuple[str, ...] = ()
    pending: tuple[Pending, ...] = ()
    unanswered: int = 0
    accepted: str | None = None


class Claim(msgspec.Struct, frozen=True):
    """Hold the right to send one login.

    Args:
        key: The entry.
        fingerprint: Of the password.
        id: The claim's own name.
        refused: The passwords that had been refused when it was made, which its success forgets.
        unanswered: How many logins had got no answer then.
    """

    key: str
    fingerprint: str
    id: str
    refused: tuple[str, ...] = ()
    unanswered: int = 0


class Refusal(msgspec.Struct, frozen=True):
    """Say why a login may not be sent now.

    Args:
        verdict: The reason.
        path: The file that holds the count.
    """

    verdict: Verdict
    path: str


class LatchState(msgspec.Struct, frozen=True):
    """Say how the latch stands.

    Args:
        refusals: How many logins were refused since the last one that was not.
        unanswered: How many got no answer, and may have been refused.
        latched: Whether the next login would be refused here.
        reason: Why, None where it would not.
        path: The file that holds the count.
    """

    refusals: int
    unanswered: int
    latched: bool
    reason: str | None
    path: str


class _Count(msgspec.Struct, frozen=True):
    """Hold the file: `salt` makes fingerprints useless elsewhere."""

    salt: str
    entries: dict[str, Entry] = msgspec.field(default_factory=dict)


def decide(entry: Entry, password: str | None, *, is_alive: Callable[[Pending], bool]) -> Verdict:
    """Decide whether a login may be sent.

    Args:
        entry: What is known.
        password: The fingerprint of the password that it would send, None for any.
        is_alive: Tells whether a claimed login can still be on its way.
    """
    if password in entry.refused:
        return Verdict.SAME_PASSWORD
    if len(entry.refused) >= MAX_REFUSALS:
        return Verdict.TWICE
    spent = len(entry.refused) + _unanswered(entry, is_alive)
    if spent >= MAX_REFUSALS:
        return Verdict.UNANSWERED
    alive = [pending for pending in entry.pending if is_alive(pending)]
    is_sent = any(pending.fingerprint == password for pending in alive)
    return Verdict.BUSY if is_sent or spent + len(alive) >= MAX_REFUSALS else Verdict.FREE


def _unanswered(entry: Entry, is_alive: Callable[[Pending], bool]) -> int:
    """Count the logins that may have been refused: without an answer, or claimed by a process that was killed."""
    killed = [one for one in entry.pending if not is_alive(one) and one.fingerprint != entry.accepted]
    return entry.unanswered + len(killed)


_held_claims: set[str] = set()
_counted_in_memory: dict[str, _Count] = {}
"""The counts of state directories that cannot be written: they end with the process, which is better than none."""


class LoginLatch:
    """Count refused logins in a file of the state directory.

    Args:
        state_dir: Where the file lies. It is made, for its owner only, when the first login is sent.
    """

    def __init__(self, state_dir: Path) -> None:
        self._file = StateFile(state_dir / "login-latch.json")
        self._known: tuple[str, str, str] | None = None

    @property
    def path(self) -> Path:
        """Return the file that holds the count."""
        return self._file.path

    def claim(self, base_url: str, username: str, password: str, *, hold_seconds: float) -> Claim | Refusal:
        """Claim the right to send a login, right before it is sent.

        Args:
            base_url: Where it goes.
            username: Whose it is.
            password: What it sends; only a salted fingerprint is kept.
            hold_seconds: After how long the login is over in any case.
        """
        key, claim_id = _key(base_url, username), secrets.token_hex(8)
        with self._file.locked():
            try:
                count = self._load()
            except DamagedError:
                return Refusal(Verdict.UNKNOWN, str(self.path))
            mark = self._fingerprint(count.salt, password)
            entry = count.entries.get(key, Entry())
            verdict = decide(entry, mark, is_alive=_is_alive)
            if verdict is not Verdict.FREE:
                return Refusal(verdict, str(self.path))
            pending = Pending(claim_id, mark, os.getpid(), time.time() + hold_seconds)
            unanswered, alive = _unanswered(entry, _is_alive), _alive(entry)
            _held_claims.add(claim_id)
            self._save(count, key, Entry(entry.refused, (*alive, pending), unanswered, entry.accepted))
        return Claim(key, mark, claim_id, entry.refused, unanswered)

    def succeeded(self, claim: Claim) -> None:
        """Note that the provider accepted the login, which forgets what came before it."""
        self._end(
            claim,
            lambda entry: Entry(
                tuple(other for other in entry.refused if other not in claim.refused),
                entry.pending,
                max(0, entry.unanswered - claim.unanswered),
                claim.fingerprint,
            ),
        )

    def refused(self, claim: Claim) -> None:
        """Note that the provider refused the login, right after it did."""
        self._end(
            claim,
            lambda entry: Entry((*entry.refused, claim.fingerprint), entry.pending, entry.unanswered, entry.accepted),
        )

    def unanswered(self, claim: Claim) -> None:
        """Note that the login was sent and no answer came: where its password is not known to be good, it counts."""
        self._end(
            claim,
            lambda entry: (
                entry
                if entry.accepted == claim.fingerprint
                else msgspec.structs.replace(entry, unanswered=entry.unanswered + 1)
            ),
        )

    def release(self, claim: Claim) -> None:
        """Note that the provider neither accepted nor refused the login."""
        self._end(claim, lambda entry: entry)

    def reset(self, base_url: str, username: str | None) -> None:
        """Forget the refusals of one user name, or, where the file cannot be read, of all.

        Raises:
            OSError: The file cannot be written.
        """
        with self._file.locked():
            _counted_in_memory.pop(str(self.path), None)
            try:
                count = self._load()
            except DamagedError:
                self.path.unlink(missing_ok=True)
                return
            if self.path.exists():
                key = _key(base_url, username or "")
                entry = count.entries.get(key, Entry())
                self._file.write(_with(count, key, Entry(pending=_alive(entry))))

    def state(self, base_url: str, username: str | None, password: str | None) -> LatchState:
        """Tell how the latch stands for a user name with a password."""
        try:
            count = self._load()
        except DamagedError:
            return LatchState(0, 0, latched=True, reason=Verdict.UNKNOWN.value, path=str(self.path))
        entry = count.entries.get(_key(base_url, username or ""), Entry())
        mark = self._fingerprint(count.salt, password) if entry.refused and password else None
        unanswered = _unanswered(entry, _is_alive)
        verdict = decide(Entry(entry.refused, (), unanswered), mark, is_alive=_is_alive)
        latched = verdict is not Verdict.FREE
        reason = verdict.value if latched else None
        return LatchState(len(entry.refused), unanswered, latched=latched, reason=reason, path=str(self.path))

    def _end(self, claim: Claim, change: Callable[[Entry], Entry]) -> None:
        with self._file.locked():
            _held_claims.discard(claim.id)
            try:
                count = self._load()
            except DamagedError:
                return  # refuses every login as it is
            entry = count.entries.get(claim.key, Entry())
            pending = tuple(other for other in entry.pending if other.id != claim.id)
            self._save(count, claim.key, change(msgspec.structs.replace(entry, pending=pending)))

    def _fingerprint(self, salt: str, password: str) -> str:
        if self._known is None or self._known[:2] != (salt, password):
            self._known = (salt, password, fingerprint(salt, password))
        return self._known[2]

    def _load(self) -> _Count:
        remembered = _counted_in_memory.get(str(self.path))
        return remembered or self._file.read(_Count) or _Count(secrets.token_hex(16))

    def _save(self, count: _Count, key: str, entry: Entry) -> None:
        changed = _with(count, key, entry)
        try:
            self._file.write(changed)
        except OSError:
            _counted_in_memory[str(self.path)] = changed
        else:
            _counted_in_memory.pop(str(self.path), None)


def _with(count: _Count, key: str, entry: Entry) -> _Count:
    entries = {name: value for name, value in count.entries.items() if name != key}
    if entry != Entry():
        entries[key] = entry
    return _Count(count.salt, entries)


def _key(base_url: str, username: str) -> str:
    return hashlib.sha256(f"{base_url}\0{username}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _alive(entry: Entry) -> tuple[Pending, ...]:
    return tuple(pending for pending in entry.pending if _is_alive(pending))


def _is_alive(pending: Pending) -> bool:
    if time.time() > pending.until:
        return False
    if pending.pid == os.getpid():
        return pending.id in _held_claims
    try:
        os.kill(pending.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's process
    return True
