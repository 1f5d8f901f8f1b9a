"""Arrivals into callbacks, and what a person decides about the quarantine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from upcall.inbox.memory.looking import selected
from upcall.inbox.memory.tables import Callback, Tables
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS, Arrival, Delivery, Receipt, Selection, State, Trust

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["drop_quarantined", "keep", "quarantined_bytes", "release_quarantined"]

_ANSWER: Final = 200


def keep(tables: Tables, arrivals: Sequence[Arrival]) -> list[Receipt]:
    """Keep arrivals, each as a callback or as one more delivery of one."""
    return [_keep_one(tables, arrival) for arrival in arrivals]


def _keep_one(tables: Tables, arrival: Arrival) -> Receipt:
    digest = hashlib.sha256(arrival.body).hexdigest()
    delivery = Delivery(
        arrival.received_at, arrival.peer, arrival.source or arrival.peer, arrival.listed, arrival.token_id, _ANSWER
    )
    original = _original(tables, arrival, digest)
    if original is not None:
        tables.update_callback(original, deliveries=(*original.deliveries, delivery))
        return Receipt(original.id, is_new=False)
    tables.last_callback_id += 1
    tables.callbacks[tables.last_callback_id] = Callback(
        id=tables.last_callback_id,
        received_at=arrival.received_at,
        account=arrival.account,
        origin=arrival.origin,
        trust=arrival.trust,
        evidence=arrival.evidence,
        digest=digest,
        body=arrival.body,
        deliveries=(delivery,),
    )
    return Receipt(tables.last_callback_id, is_new=True)


def _original(tables: Tables, arrival: Arrival, digest: str) -> Callback | None:
    """Return the callback that an arrival is one more delivery of.

    A callback in quarantine and one that is not are never copies of each other, nor are two that came in other ways.
    """
    is_quarantined = arrival.trust is Trust.QUARANTINED
    for callback in tables.callbacks.values():
        if (
            callback.digest == digest
            and callback.origin == arrival.origin
            and callback.is_quarantined == is_quarantined
            and abs(callback.received_at - arrival.received_at) <= REDELIVERY_WINDOW_MICROS
        ):
            return callback
    return None


def quarantined_bytes(tables: Tables) -> int:
    """Return how many bytes of bodies the quarantine holds."""
    return sum(len(callback.body or b"") for callback in tables.callbacks.values() if callback.is_quarantined)


def release_quarantined(tables: Tables, selection: Selection, limit: int) -> int:
    """Let handlers see quarantined callbacks, in the order of their release; return how many."""
    chosen = _quarantined(tables, selection)[:limit]
    for callback in chosen:
        evidence = f"{callback.evidence}; released by hand" if callback.evidence else "released by hand"
        tables.update_callback(callback, trust=Trust.ACCEPTED, evidence=evidence)
    tables.releases += tuple(callback.id for callback in chosen)
    return len(chosen)


def drop_quarantined(tables: Tables, selection: Selection, limit: int) -> int:
    """Remove the bodies of quarantined callbacks; return how many."""
    chosen = _quarantined(tables, selection)[:limit]
    for callback in chosen:
        tables.update_callback(callback, body=None, is_dropped=True)
    return len(chosen)


def _quarantined(tables: Tables, selection: Selection) -> list[Callback]:
    return [row for row in selected(tables, selection) if tables.state(row) is State.QUARANTINED]
