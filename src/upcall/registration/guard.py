"""The watch over what is registered: a round of looks, the alerts, and, where that is asked for, taking a slot back."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import SettingsError, StartError
from upcall.inbox import JournalEntry, Note
from upcall.listener import Token
from upcall.registration.applying import carry_out, drive_async, flaw_of
from upcall.registration.audit import Audit
from upcall.registration.desired import in_order
from upcall.registration.lock import registration_lock
from upcall.registration.outages import ALIVE_MICROS, living
from upcall.registration.planning import Standing, step_of
from upcall.registration.watching import (
    Transition,
    Watch,
    observe,
    pause_seconds,
    reason_to_leave,
    taken_again,
    transition_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from upcall.client import AccountResult, AsyncThingSpaceClient
    from upcall.inbox import Inbox
    from upcall.registration.alerts import Alerts
    from upcall.registration.applying import Applied
    from upcall.registration.callers import Callers
    from upcall.registration.desired import Target
    from upcall.registration.figures import GuardFigures
    from upcall.registration.planning import Step
    from upcall.registration.reading import Desired
    from upcall.thingspace import CallbackSummary

__all__ = ["TOPIC", "Guard", "Seen", "watch"]

TOPIC: Final = "guard"
"""The topic of its notes, one an account, and of its journal, an entry a transition."""

READ_SECONDS: Final = 120.0
"""How long the reading of a round may take at least, and `_EACH_SECONDS` more for each account: a provider that hangs
must not hold up the next round for ever, and many accounts take their time."""

_EACH_SECONDS: Final = 1.0

_AGAIN_SECONDS: Final = 10.0
_CALL_SECONDS: Final = 20.0

_log = logging.getLogger("upcall.guard")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Say how one account stands after a round; `repr` shows no token.

    Args:
        account: The account.
        watch: What is known of it.
        transitions: What changed in this round, in its order.
        left: Why what is not in order was left so, None where all is well or nobody asked for more.
        problem: Why it cannot be watched at all, None where it is.
    """

    account: str
    watch: Watch
    transitions: tuple[Transition, ...] = ()
    left: str | None = None
    problem: str | None = None


class Guard:
    """Compare what is registered with what should be, one round at a time.

    What is known lies in the store, and is read anew in each round: a guard that starts again, or a second one, tells
    nobody twice. What looks like news is read again under the lock that all writers take, so that an ``apply`` under
    way is not taken for drift.

    Args:
        inbox: Where notes, journal and audit lie, and where subscribers hear of it.
        callers: Calls the provider.
        desire: Returns what is desired now.
        alerts: Tells everybody.
        figures: What is counted.
        state_dir: Where the lock lies.
        reassert: Take back a slot that was ours.
        allow_http: Admit http URLs to this machine.
        now: Returns the time, UTC microseconds.
        wait_seconds: How long to wait for another writer.
        preflight: Looks at URLs before they are written again, and returns which accounts' must not be, with why.
    """

    def __init__(
        self,
        inbox: Inbox,
        callers: Callers,
        desire: Callable[[], Desired],
        alerts: Alerts,
        *,
        figures: GuardFigures,
        state_dir: Path,
        reassert: bool = False,
        allow_http: bool = False,
        now: Callable[[], int],
        wait_seconds: float = 0.0,
        preflight: Callable[[Sequence[Target]], Awaitable[Mapping[str, str]]],
    ) -> None:
        self.preflight: Callable[[Sequence[Target]], Awaitable[Mapping[str, str]]] = preflight
        self.inbox: Inbox = inbox
        self.callers: Callers = callers
        self.alerts: Alerts = alerts
        self.figures: GuardFigures = figures
        self.reasserts: bool = reassert
        self.allow_http: bool = allow_http
        self.now: Callable[[], int] = now
        self._desire = desire
        self._state_dir = state_dir
        self._wait_seconds = wait_seconds
        self._problems: dict[str, str] = {}

    async def round(self) -> list[Seen]:
        """Look at every account once, tell what changed, and take back what may be.

        Raises:
            StartError: Another writer is at the registrations.
            SettingsError: Credentials are missing.
            StoreError: The store cannot be used.
        """
        with registration_lock(self._state_dir, "guard", wait_seconds=self._wait_seconds):
            pass  # who writes now goes on for a while, and what is read meanwhile is read in vain
        standing = await self.read(self._desire().targets)
        with registration_lock(self._state_dir, "guard", wait_seconds=self._wait_seconds):
            seen = await _Round(self, self._desire()).conclude(standing)
        self._count(seen)
        return seen

    async def read(self, targets: Sequence[Target]) -> dict[str, Standing]:
        """Read what is registered for those that have a URL to compare it with."""
        accounts = {target.account: target.credentials for target in targets if target.url is not None}
        within_seconds = READ_SECONDS + _EACH_SECONDS * len(accounts)
        ends = await self.callers.each(accounts, _read, within_seconds=within_seconds)
        return {account: _standing(account, ends.get(account)) for account in accounts}

    def _count(self, seen: Sequence[Seen]) -> None:
        self.figures.accounts = dict(Counter(one.watch.state for one in seen))
        self.figures.rounds += 1
        self.figures.last_round_at = self.now()
        problems = {one.account: one.problem for one in seen if one.problem is not None}
        for account, problem in problems.items():
            if self._problems.get(account) != problem:  # once, not with each round
                _log.warning("%s is not watched: %s", account, problem)
        self._problems = problems


class _Look:
    """Hold one account through a round."""

    def __init__(self, target: Target, before: Watch) -> None:
        self.target = target
        self.before = before
        self.watch = before
        self.ours = False
        self.left: str | None = None
        self.transitions: list[Transition] = []
        self.kept = 0

    def take(self, watch: Watch, now: int, *, taken_back: bool = False) -> None:
        """Take over what is known now, with the change that it is."""
        change = transition_of(self.target.account, self.watch, watch, now=now, ours=self.ours)
        self.watch = watch
        if change is not None:
            self.transitions.append(msgspec.structs.replace(change, taken_back=taken_back))


class _Round:
    """Conclude one round, under the lock."""

    def __init__(self, guard: Guard, desired: Desired) -> None:
        self._guard = guard
        self._desired = desired
        self._registered = desired.history.registered()
        self._removed = desired.history.removed()
        notes = {note.key: Watch.of(note.document) for note in guard.inbox.notes(TOPIC)}
        self._looks = {
            target.account: _Look(target, notes.get(target.account, Watch()))
            for target in desired.targets
            if target.url is not None
        }

    async def conclude(self, standing: Mapping[str, Standing]) -> list[Seen]:
        """Decide by what was read, reading again what would be news; keep it, then take back what may be."""
        news = [look.target for look in self._looks.values() if self._is_news(look, standing)]
        fresh = {**standing, **(await self._guard.read(news))}
        for account, look in self._looks.items():
            if account in fresh:
                self._observe(look, fresh[account])
        self._keep(self._looks.values())
        if self._guard.reasserts:
            await self._take_back()
        return [self._seen(target) for target in self._desired.targets if target.template is not None]

    def _is_news(self, look: _Look, standing: Mapping[str, Standing]) -> bool:
        """Tell whether it would change something; one that was added since is not looked at before the next round."""
        found = standing.get(look.target.account)
        if found is None or found.error is not None:
            return False
        after = self._after(look, found)
        return transition_of(look.target.account, look.watch, after, now=self._guard.now()) is not None

    def _observe(self, look: _Look, standing: Standing, *, taken_back: bool = False) -> None:
        look.ours = self._desired.ours.owns(look.target.account, standing.url)
        look.take(self._after(look, standing), self._guard.now(), taken_back=taken_back)

    def _after(self, look: _Look, standing: Standing) -> Watch:
        account = look.target.account
        return observe(
            look.watch,
            standing,
            desired=look.target.url,
            is_well=in_order(look.target, standing.url),
            was_ours=account in self._registered,
            ours=self._desired.ours.owns(account, standing.url),
            reasserts=self._guard.reasserts,
            now=self._guard.now(),
        )

    async def _take_back(self) -> None:
        """Write the slots that are ours to take back, each read again right before."""
        for look in self._looks.values():
            if look.watch.state in {"drifted", "none", "given_up"}:
                look.left = self._reason_to_leave(look)
        looks = {
            account: look
            for account, look in self._looks.items()
            if look.watch.state in {"drifted", "none"} and look.left is None
        }
        if not looks:
            return
        for account, why in (await self._guard.preflight([look.target for look in looks.values()])).items():
            looks.pop(account).left = why
        audit = Audit(self._guard.inbox, "guard", now=self._guard.now)
        ends = await self._guard.callers.each(
            {account: look.target.credentials for account, look in looks.items()},
            lambda client, account: self._write(client, looks[account].target, audit),
        )
        for account, look in looks.items():
            self._end(look, ends[account])
        self._keep(looks.values())

    async def _write(self, client: AsyncThingSpaceClient, target: Target, audit: Audit) -> Applied:
        def decide(standing: Standing) -> Step:
            return step_of(target, standing, self._desired.ours)

        return await drive_async(carry_out(target.account, decide, _permit, audit), client)

    def _end(self, look: _Look, end: AccountResult[Applied]) -> None:
        account = look.target.account
        if end.result is None:
            look.left = f"the slot could not be taken back: {end.error}"
            _log.warning("%s: %s", account, look.left)
            return
        applied = end.result
        standing = Standing(account=account, url=applied.stands)
        if applied.outcome == "differs" and not in_order(look.target, applied.stands):
            look.left = "it was taken again at once"
            look.take(taken_again(look.watch, standing, self._guard.now()), self._guard.now())
            return
        done = applied.outcome == "done"
        self._guard.figures.reasserted += done
        look.left = applied.why if applied.outcome == "refused" else None
        self._observe(look, standing, taken_back=done)

    def _reason_to_leave(self, look: _Look) -> str | None:
        account = look.target.account
        return reason_to_leave(
            look.watch,
            was_ours=account in self._registered,
            was_removed=account in self._removed,
            ours=look.ours,
            flaw=flaw_of(account, look.target.url, allow_http=self._guard.allow_http),
            accepted=self._is_accepted(look.target),
        )

    def _is_accepted(self, target: Target) -> bool:
        """Tell whether a listener accepts the token of the desired URL; where none lives in this store, who knows."""
        now = self._guard.now()
        listeners = living(self._guard.inbox.uptimes(since=now - ALIVE_MICROS), now)
        if not target.tokens or not listeners:
            return True
        return any(Token(target.tokens[0]).id in listener.tokens for listener in listeners)

    def _keep(self, looks: Iterable[_Look]) -> None:
        """Write what is known now, each change in the journal, and tell of it: once, and before anything is mended."""
        now, looks = self._guard.now(), list(looks)
        changes = [change for look in looks for change in look.transitions[look.kept :]]
        for change in changes:
            self._guard.inbox.record(
                JournalEntry(topic=TOPIC, at=change.at, account=change.account, document=change.document())
            )
        self._guard.inbox.put_note(
            *(Note(topic=TOPIC, key=look.target.account, at=now, document=look.watch.document()) for look in looks)
        )
        for look in looks:
            look.kept = len(look.transitions)
        for change in changes:
            self._guard.alerts.tell(change)

    def _seen(self, target: Target) -> Seen:
        look = self._looks.get(target.account)
        if look is None:
            return Seen(account=target.account, watch=Watch(), problem=target.problem)
        return Seen(account=target.account, watch=look.watch, transitions=tuple(look.transitions), left=look.left)


async def watch(
    guard: Guard,
    *,
    every_seconds: float,
    on_round: Callable[[list[Seen]], object] = lambda _: None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> None:
    """Make one round after the other until it is cancelled; one that fails does not end it.

    Args:
        guard: Makes the rounds.
        every_seconds: How long to wait after each, a tenth more or less.
        on_round: Called with what each round saw.
        sleep: Waits.
        chance: A random number of [0, 1), for the jitter.

    Raises:
        SettingsError: Credentials are missing: no round will ever come to an end.
    """
    trouble = ""
    while True:
        pause = pause_seconds(every_seconds, chance())
        try:
            seen = await guard.round()
        except SettingsError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, a guard that ends guards nothing
            guard.figures.failed_rounds += 1
            if isinstance(error, StartError):
                pause = min(pause, _AGAIN_SECONDS)
            if str(error) != trouble:  # once, not with each round
                trouble = str(error)
                _log.warning("this round came to no end: %s", error)
        else:
            trouble = ""
            on_round(seen)
        await sleep(pause)


def _permit(step: Step) -> str | None:
    """Say why a slot must be left: it is another one than a moment ago."""
    return "an older URL of ours stands there: upcall apply" if step.action == "update" else None


async def _read(client: AsyncThingSpaceClient, account: str) -> CallbackSummary:
    return await client.callbacks.list_registered_callbacks(account, max_elapsed_seconds=_CALL_SECONDS)


def _standing(account: str, end: AccountResult[CallbackSummary] | None) -> Standing:
    if end is None:
        return Standing(account=account, error="it was not its turn before the round's time was over.")
    if end.result is None:
        return Standing(account=account, error=str(end.error))
    return Standing(account=account, url=end.result.url)
