"""The read side: which callbacks and which work a selection means, and what a store says of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from upcall.inbox.memory.tables import Tally
from upcall.inbox.values import (
    CallbackRecord,
    CampaignRecord,
    DeadRecord,
    DeviceRecord,
    DriftRecord,
    Ledger,
    Selection,
    State,
    SubscriberRecord,
    WorkRecord,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from upcall.inbox.memory.tables import Callback, Tables, Work

__all__ = [
    "callback_record",
    "campaign",
    "campaigns",
    "dead",
    "drift",
    "ledger",
    "newest",
    "selected",
    "selected_work",
    "subscribers",
    "unread_by",
    "unread_by_any",
    "work_records",
]

Row = TypeVar("Row")


def selected(tables: Tables, selection: Selection) -> list[Callback]:
    """Return the callbacks that a selection means, in the order of receipt."""
    return [row for row in tables.callbacks.values() if _means(tables, selection, row)]


def selected_work(tables: Tables, selection: Selection, states: Collection[str]) -> list[Work]:
    """Return the work in some states that a selection means, in the order in which it was made."""
    callbacks = {row.id for row in selected(tables, selection)}
    return [
        work
        for work in tables.work.values()
        if work.callback_id in callbacks and work.state in states and _means_work(selection, work)
    ]


def _means(tables: Tables, selection: Selection, callback: Callback) -> bool:
    event = tables.event(callback)
    return (
        (not selection.ids or callback.id in selection.ids)
        and callback.id > selection.after
        and (not selection.before or callback.id < selection.before)
        and (selection.since is None or callback.received_at >= selection.since)
        and (selection.until is None or callback.received_at < selection.until)
        and selection.account in {None, event.account}
        and selection.kind in {None, event.kind}
        and selection.campaign_id in {None, event.campaign_id}
        and selection.state in {None, tables.state(callback)}
        and (not selection.given_up or any(work.state == "dead" for work in tables.work_of(callback.id)))
        and (
            (selection.subscriber is None and selection.device_id is None)
            or any(_means_work(selection, work) for work in tables.work_of(callback.id))
        )
    )


def _means_work(selection: Selection, work: Work) -> bool:
    return selection.subscriber in {None, work.subscriber} and selection.device_id in {None, work.device_id}


def newest(rows: list[Row], limit: int) -> list[Row]:
    """Return the last so many rows, all of them where the limit is 0."""
    return rows[-limit:] if limit else rows


def callback_record(tables: Tables, callback: Callback, *, with_body: bool = True) -> CallbackRecord:
    """Return what is known of a callback."""
    event = tables.event(callback)
    return CallbackRecord(
        id=callback.id,
        received_at=callback.received_at,
        account=event.account,
        kind=event.kind,
        campaign_id=event.campaign_id,
        deliveries=len(callback.deliveries),
        state=tables.state(callback).value,
        origin=callback.origin,
        trust=callback.trust.value,
        evidence=callback.evidence,
        duplicate=event.duplicate,
        duplicate_of=event.duplicate_of,
        key=event.key,
        digest=callback.digest,
        body_bytes=None if callback.body is None else len(callback.body),
        body=callback.body if with_body else None,
    )


def work_records(tables: Tables, callback_id: int) -> list[WorkRecord]:
    """Return what subscribers did with a callback."""
    rows = sorted(tables.work_of(callback_id), key=lambda work: (work.subscriber, work.device_id))
    return [
        WorkRecord(
            row.subscriber,
            row.device_id,
            row.state,
            row.attempts,
            row.due_at,
            row.finished_at,
            row.error,
            row.replays,
            row.merged_with,
        )
        for row in rows
    ]


def dead(tables: Tables, selection: Selection) -> list[DeadRecord]:
    """Return dead letters, oldest first."""
    return [_dead_record(tables, work) for work in selected_work(tables, selection, {"dead"})]


def _dead_record(tables: Tables, work: Work) -> DeadRecord:
    callback = tables.callbacks[work.callback_id]
    event = tables.event(callback)
    return DeadRecord(
        callback_id=callback.id,
        subscriber=work.subscriber,
        device_id=work.device_id,
        attempts=work.attempts,
        finished_at=work.finished_at or 0,
        error=work.error,
        kind=event.kind,
        account=event.account,
        campaign_id=event.campaign_id,
    )


def campaigns(tables: Tables) -> list[CampaignRecord]:
    """Return all campaigns in the order of their last word."""
    places = sorted(tables.campaigns, key=lambda place: (tables.campaigns[place].last_at, place))
    return [_campaign_record(tables, place) for place in places]


def campaign(tables: Tables, campaign_id: str) -> tuple[CampaignRecord, list[DeviceRecord]] | None:
    """Return one campaign and its devices; of several accounts' with that name the one last heard of."""
    places = [place for place in tables.campaigns if place[0] == campaign_id]
    if not places:
        return None
    place = max(places, key=lambda place: (place[1] != "", tables.campaigns[place].last_at))
    return _campaign_record(tables, place), [device for _, device in _devices(tables, place)]


def _campaign_record(tables: Tables, place: tuple[str, str]) -> CampaignRecord:
    view = tables.campaigns[place]
    devices = [device for _, device in _devices(tables, place)]
    words = Counter(device.status or "" for device in devices)
    return CampaignRecord(
        campaign_id=place[0],
        account=place[1] or None,
        name=view.name,
        status=view.status,
        first_at=view.first_at,
        last_at=view.last_at,
        callbacks=view.callbacks,
        devices=dict(sorted(words.items())),
        contradiction=view.contradiction,
        contradicting=sum(device.contradiction is not None for device in devices),
    )


def _devices(tables: Tables, place: tuple[str, str]) -> list[tuple[str, DeviceRecord]]:
    return sorted((key[2], device) for key, device in tables.devices.items() if key[:2] == place)


def drift(tables: Tables) -> list[DriftRecord]:
    """Return how callbacks differed from the known schema, most recent last."""
    return sorted(tables.drift.values(), key=lambda row: (row.last_id, row.text))


def ledger(tables: Tables) -> Ledger:
    """Count each callback once."""
    counts = Counter(_heading(tables, callback) for callback in tables.callbacks.values())
    headings = ("quarantined", "dropped", "unread", "pending", "handled", "dead", "unwanted")
    return Ledger(
        stored=len(tables.callbacks),
        deliveries=sum(len(callback.deliveries) for callback in tables.callbacks.values()),
        **{heading: counts[heading] for heading in headings},
    )


def _heading(tables: Tables, callback: Callback) -> str:
    state = tables.state(callback)
    if state is State.PENDING:
        return "pending" if any(work.is_open for work in tables.work_of(callback.id)) else "unread"
    if state is State.STORED:
        return "unread" if unread_by_any(tables, callback) else "unwanted"
    return "handled" if state is State.DONE else state.value


def unread_by_any(tables: Tables, callback: Callback) -> bool:
    """Tell whether some subscriber has not looked at a callback; where there is none, whether a new one would."""
    positions = tables.subscribers.values() or [tables.forgotten]
    place = tables.place(callback)
    return not callback.is_quarantined and not all(position.includes(place) for position in positions)


def unread_by(tables: Tables, name: str, callback: Callback) -> bool:
    """Tell whether a subscriber may look at a callback and has not."""
    return not callback.is_quarantined and not tables.subscribers[name].includes(tables.place(callback))


def subscribers(tables: Tables) -> list[SubscriberRecord]:
    """Return how far each subscriber is."""
    return [_subscriber(tables, name) for name in sorted(tables.subscribers)]


def _subscriber(tables: Tables, name: str) -> SubscriberRecord:
    unread = [row for row in tables.callbacks.values() if unread_by(tables, name, row)]
    work = [row for row in tables.work.values() if row.subscriber == name]
    states = Counter(row.state for row in work)
    tally = tables.tallies.get(name, Tally())
    undone = [row.received_at for row in unread]
    undone += [tables.callbacks[row.callback_id].received_at for row in work if row.is_open]
    return SubscriberRecord(
        name=name,
        unread=len(unread),
        pending=states["pending"],
        leased=states["leased"],
        dead=states["dead"],
        oldest_at=min(undone, default=None),
        done=tally.done,
        failed=tally.failed,
    )
