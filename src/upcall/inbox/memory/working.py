"""Work: who wants which callbacks, who is at it, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from upcall.inbox.memory.clock import note_time
from upcall.inbox.memory.looking import selected_work
from upcall.inbox.memory.reported import mergers
from upcall.inbox.memory.tables import ENDED, Callback, OrderKey, Position, Tables, Work
from upcall.inbox.values import UNENDED, Lessee, Outcome, ReplayRecord, Selection, Subscription, WorkItem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from upcall.thingspace import CallbackEvent

__all__ = [
    "Wish",
    "claim",
    "drop_dead",
    "enroll",
    "give_back",
    "lease_new",
    "next_due",
    "renew",
    "replay",
    "replayable",
    "settle",
    "subscribe",
    "to_enroll",
    "unsubscribe",
    "wishes",
]

_MICROS: Final = 1_000_000

Wish = tuple[int, str, str, OrderKey | None]
"""Work that a subscriber wants: the callback, its name, the device, and within which order."""


def subscribe(tables: Tables, names: Sequence[str]) -> None:
    """Make subscribers known: the first ones begin at the store's start, later ones where the furthest stood."""
    furthest = tables.forgotten
    for position in tables.subscribers.values():
        furthest = furthest.furthest(position)
    for name in names:
        tables.subscribers.setdefault(name, furthest)


def unsubscribe(tables: Tables, name: str) -> int:
    """Forget a subscriber and its work that is not done; return how much work that was."""
    tables.forgotten = tables.forgotten.furthest(tables.subscribers.pop(name, Position()))
    tables.tallies.pop(name, None)
    undone = [row.id for row in tables.work.values() if row.subscriber == name and (row.is_open or row.state == "dead")]
    for work_id in undone:
        del tables.work[work_id]
    return len(undone)


def to_enroll(tables: Tables, subscriptions: Sequence[Subscription], limit: int) -> list[Callback]:
    """Return the next callbacks that not all of the subscribers have looked at."""
    positions = [tables.subscribers[each.name] for each in subscriptions if each.name in tables.subscribers]
    if not positions:
        return []
    start = Position(min(each.callback_id for each in positions), min(each.releases for each in positions))
    return tables.after(start)[:limit]


def wishes(tables: Tables, subscriptions: Sequence[Subscription], callbacks: Sequence[Callback]) -> Iterator[Wish]:
    """Yield the work that subscribers want of callbacks that they have not looked at."""
    for callback in callbacks:
        event = callback.handed_on
        if event is None:
            continue
        for subscription in subscriptions:
            position = tables.subscribers.get(subscription.name)
            if position is not None and not position.includes(tables.place(callback)):
                order_key = _order_key(subscription, event)
                for device_id in subscription.wants(event):
                    yield callback.id, subscription.name, device_id, order_key


def _order_key(subscription: Subscription, event: CallbackEvent) -> OrderKey | None:
    if not subscription.ordered or event.campaign_id is None:
        return None
    return subscription.name, event.account or "", event.campaign_id


def enroll(
    tables: Tables, names: Sequence[str], callbacks: Sequence[Callback], wanted: Sequence[Wish], now: int
) -> list[Work]:
    """Make work of what is wanted, where there is none yet, and note that the subscribers have looked."""
    note_time(tables, now)
    known = {(work.callback_id, work.subscriber, work.device_id) for work in tables.work.values()}
    merging = mergers(tables, callbacks)
    made = []
    for callback_id, name, device_id, order_key in wanted:
        place = (callback_id, name, device_id)
        if place in known or name not in tables.subscribers:
            continue
        known.add(place)
        tables.last_work_id += 1
        work = Work(tables.last_work_id, *place, due_at=now, order_key=order_key)
        told = merging[callback_id].behind(device_id) if callback_id in merging else []
        if told and all((number, name, device_id) in known for number in told):
            work = msgspec.structs.replace(work, state="done", due_at=0, finished_at=now, merged_with=told[-1])
        tables.work[tables.last_work_id] = work
        made.append(work)
    for name in tables.subscribers.keys() & set(names):
        for callback in callbacks:
            tables.subscribers[name] = tables.subscribers[name].furthest(tables.place(callback))
    return made


def lease_new(tables: Tables, made: Sequence[Work], lessee: Lessee, now: int) -> list[WorkItem]:
    """Lease new work that has no order, of each subscriber as much as there is room for."""
    left = dict(lessee.room)
    items = []
    for work in made:
        if work.is_open and work.order_key is None and left.get(work.subscriber, 0) > 0:
            left[work.subscriber] -= 1
            items.append(_lease(tables, work, lessee.owner, now + int(lessee.seconds * _MICROS)))
    return items


def claim(
    tables: Tables,
    names: Sequence[str],
    owner: str,
    now: int,
    *,
    lease_seconds: float,
    limit: int,
    unended_alone: bool,
) -> list[WorkItem]:
    """Lease work that is due, or whose lease ran out, each subscriber's in its order and all subscribers in turn.

    In turn, so that what one of them has left undone does not hold up the others.
    """
    note_time(tables, now)
    queues = [[work for work in _queue(tables, name) if work.due_at <= now] for name in dict.fromkeys(names)]
    turns = sorted(
        ((turn, work) for queue in queues for turn, work in enumerate(queue)),
        key=lambda place: (place[0], place[1].due_at, place[1].id),
    )
    due = [work for _, work in turns][:limit]
    if unended_alone:  # the first of them, where there is any: others wait no longer than it runs
        due = [work for work in due if _is_unended(work)][:1] or due
    return [_lease(tables, work, owner, now + int(lease_seconds * _MICROS)) for work in sorted(due, key=_number)]


def _number(work: Work) -> int:
    return work.id


def _is_unended(work: Work) -> bool:
    return work.state == "leased" or work.error == UNENDED


def _lease(tables: Tables, work: Work, owner: str, due_at: int) -> WorkItem:
    unended = _is_unended(work)
    tables.update_work(
        work,
        state="leased",
        owner=owner,
        due_at=due_at,
        attempts=work.attempts + 1,
        error=UNENDED if unended else work.error,
    )
    callback = tables.callbacks[work.callback_id]
    return WorkItem(
        id=work.id,
        subscriber=work.subscriber,
        device_id=work.device_id,
        attempt=work.attempts + 1,
        callback_id=callback.id,
        received_at=callback.received_at,
        account=callback.account,
        digest=callback.digest,
        body=callback.body or b"",
        unended=unended,
        origin=callback.origin,
    )


def _queue(tables: Tables, name: str) -> list[Work]:
    """Return a subscriber's open work, soonest first; of what is ordered only the first of each campaign."""
    begun: set[OrderKey] = set()
    queue = []
    for work in sorted(tables.work.values(), key=lambda work: work.id):
        if work.subscriber != name or not work.is_open or work.order_key in begun:
            continue
        if work.order_key is not None:
            begun.add(work.order_key)
        queue.append(work)
    return sorted(queue, key=lambda work: (work.due_at, work.id))


def renew(tables: Tables, work_ids: Sequence[int], owner: str, now: int, *, lease_seconds: float) -> None:
    """Extend leases that the owner still holds."""
    note_time(tables, now)
    for work_id in work_ids:
        work = tables.work.get(work_id)
        if work is not None and work.held_by(owner):
            tables.update_work(work, due_at=now + int(lease_seconds * _MICROS))


def settle(tables: Tables, outcomes: Sequence[Outcome], owner: str, now: int) -> None:
    """Record how leased work ended; an owner that lost its lease changes nothing."""
    note_time(tables, now)
    for outcome in outcomes:
        work = tables.work.get(outcome.work_id)
        if work is not None and work.held_by(owner):
            tables.count(work.subscriber, outcome.state)
            tables.update_work(
                work,
                state=outcome.state,
                due_at=0 if outcome.state == "done" else outcome.due_at,
                error=None if outcome.state == "done" else outcome.error,
                owner=None,
                finished_at=now if outcome.state in ENDED else None,
            )


def give_back(tables: Tables, owners: Sequence[str], now: int, *, uncounted: bool) -> int:
    """Make the work that these owners hold pending at once; return how much it was."""
    note_time(tables, now)
    held = [work for work in tables.work.values() if work.state == "leased" and work.owner in owners]
    for work in held:
        tables.update_work(
            work,
            state="pending",
            owner=None,
            due_at=now,
            attempts=work.attempts - uncounted,
            error=work.error if uncounted else UNENDED,
        )
    return len(held)


def next_due(tables: Tables, names: Sequence[str]) -> int | None:
    """Return when the next piece of work is due, None where there is none."""
    return min((work.due_at for name in names for work in _queue(tables, name)), default=None)


def replay(tables: Tables, selection: Selection, now: int, *, reason: str, limit: int) -> int:
    """Make work that ended pending again, oldest first; return how many pieces."""
    note_time(tables, now)
    found = _replayable(tables, selection)
    chosen = found[:limit]
    if chosen and selection.state is not None:
        # With all of the last callback's: its state is another as soon as one of its pieces is pending.
        chosen += [work for work in found[limit:] if work.callback_id == chosen[-1].callback_id]
    for work in chosen:
        before = ReplayRecord(now, reason, work.state, work.attempts, work.error)
        tables.update_work(
            work,
            state="pending",
            attempts=0,
            due_at=now,
            finished_at=None,
            replays=(*work.replays, before),
            merged_with=None,
        )
    return len(chosen)


def replayable(tables: Tables, selection: Selection) -> int:
    """Return how many pieces of work `replay` would take."""
    return len(_replayable(tables, selection))


def _replayable(tables: Tables, selection: Selection) -> list[Work]:
    found = [
        work
        for work in selected_work(tables, selection, ENDED)
        if work.subscriber in tables.subscribers and tables.callbacks[work.callback_id].body is not None
    ]
    return sorted(found, key=lambda work: (work.callback_id, work.id))


def drop_dead(tables: Tables, selection: Selection, now: int, *, limit: int) -> int:
    """Give up dead work for good; return how many pieces."""
    chosen = selected_work(tables, selection, {"dead"})[:limit]
    for work in chosen:
        tables.update_work(work, state="dropped", finished_at=now)
    return len(chosen)
