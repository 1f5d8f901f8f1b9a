"""A stored callback, its deliveries and its work, as JSON documents and as lines for a person."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from upcall.cli.moments import words_of_count, words_of_micros
from upcall.cli.output import line, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from upcall.inbox import CallbackRecord, Delivery, Inbox, WorkRecord

__all__ = [
    "HEADERS",
    "archive_document",
    "details",
    "document",
    "duplicate_words",
    "print_block",
    "print_details",
    "replay_words",
    "row",
    "shown_error",
    "work_document",
]

HEADERS: Final = ("ID", "RECEIVED", "ACCOUNT", "KIND", "CAMPAIGN", "DELIVERIES", "STATE", "TRUST", "DUPLICATE")
_LISTED: Final = {True: "listed", False: "not listed", None: None}
_LISTS: Final = ("devices", "drift", "received", "work")
_APART: Final = frozenset({"raw", "raw_base64", "duplicate_words", "evidence", *_LISTS})
_LABEL: Final = 17


def row(record: CallbackRecord) -> tuple[str, ...]:
    """Return a callback as the row of a list, under `HEADERS`."""
    from upcall.thingspace import text_of_micros

    return (
        str(record.id),
        text_of_micros(record.received_at),
        record.account or "-",
        record.kind or "-",
        record.campaign_id or "-",
        str(record.deliveries) if record.origin == "received" else record.origin,
        record.state,
        record.trust,
        record.duplicate,
    )


def document(record: CallbackRecord) -> dict[str, Any]:
    """Return a callback as ``events list --json`` prints it."""
    from upcall.thingspace import text_of_micros

    return {
        "id": record.id,
        "received_at": text_of_micros(record.received_at),
        "account": record.account,
        "kind": record.kind,
        "campaign_id": record.campaign_id,
        "deliveries": record.deliveries,
        "state": record.state,
        "origin": record.origin,
        "trust": record.trust,
        "duplicate": record.duplicate,
        **_raw(record.body),
    }


def archive_document(inbox: Inbox, record: CallbackRecord) -> dict[str, Any]:
    """Return everything that the store itself knows of a callback, handlers' work aside."""
    return {
        **document(record),
        "evidence": record.evidence,
        "duplicate_of": record.duplicate_of,
        "sha256": record.digest,
        "body_bytes": record.body_bytes,
        "received": [_delivery_document(delivery) for delivery in inbox.deliveries(record.id)],
    }


def details(inbox: Inbox, record: CallbackRecord) -> dict[str, Any]:
    """Return everything about one callback; where its body is gone, what it said of devices and drift is gone too."""
    from upcall.inbox import key_of
    from upcall.inbox.events import projected_event

    event = projected_event(record.body, record.digest, record.origin)
    return {
        **document(record),
        "evidence": record.evidence,
        "duplicate_of": record.duplicate_of,
        "duplicate_words": duplicate_words(inbox, record),
        "key": key_of(record.id, record.digest),
        "sha256": record.digest,
        "body_bytes": record.body_bytes,
        "campaign_name": event.campaign_name,
        "campaign_status": event.campaign_status,
        "devices": [
            {"device_id": device.device_id, "status": device.status, "reason": device.reason}
            for device in event.devices
        ],
        "drift": list(event.drift),
        "received": [_delivery_document(delivery) for delivery in _received(inbox, record)],
        "work": [work_document(work) for work in inbox.work(record.id)],
    }


def _received(inbox: Inbox, record: CallbackRecord) -> Sequence[Delivery]:
    """Return a callback's deliveries; what no provider sent was not delivered."""
    return inbox.deliveries(record.id) if record.origin == "received" else ()


def work_document(work: WorkRecord) -> dict[str, Any]:
    """Return a piece of work with its replays."""
    return {
        "subscriber": work.subscriber,
        "device_id": work.device_id or None,
        "state": work.state,
        "attempts": work.attempts,
        "due_at": _time(work.due_at) if work.state in {"pending", "leased"} else None,
        "finished_at": _time(work.finished_at),
        "merged_with": work.merged_with,
        "error": shown_error(work.error),
        "replays": [
            {
                "replayed_at": _time(replay.replayed_at),
                "reason": replay.reason,
                "state": replay.state,
                "attempts": replay.attempts,
                "error": shown_error(replay.error),
            }
            for replay in work.replays
        ],
    }


def duplicate_words(inbox: Inbox, record: CallbackRecord) -> str:
    """Say what the guess about a callback rests on: which earlier one, how long before, and what is the same."""
    if record.duplicate_of is None:
        return "no earlier callback that is kept says the same"
    earlier = inbox.callback(record.duplicate_of)
    if earlier is None:
        return f"callback {record.duplicate_of} said the same, and is no longer kept"
    gap = record.received_at - earlier.received_at
    when = f"{words_of_micros(gap)} {'before' if gap >= 0 else 'after, by the clock'}"
    same = "the same bytes" if record.digest == earlier.digest else "other bytes that say the same"
    return f"callback {earlier.id}, {when}: {same}"


def shown_error(error: str | None) -> str | None:
    """Return a traceback as it may be shown: without a password that it quotes out of a body."""
    from upcall.redact import blank_password

    if error is None:
        return None
    return blank_password(error.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


def replay_words(replay: Mapping[str, Any]) -> str:
    """Say how work had ended before it was replayed, and why it was."""
    return (
        f"replayed at {replay['replayed_at']} ({replay['reason']}): it was {replay['state']}"
        f" after {words_of_count(replay['attempts'], 'attempt')}"
    )


def print_details(found: Mapping[str, Any]) -> None:
    """Print everything about one callback for a person."""
    for name, value in found.items():
        if name not in _APART and value is not None:
            _labelled(name, _said(found, name, str(value)))
    for name in _LISTS:
        for entry in found[name]:
            _print_entry(name, entry)
    line("")
    line(_body(found))


def _body(found: Mapping[str, Any]) -> str:
    """Return a body as a person reads it: what is no UTF-8 in it escaped."""
    if encoded := found.get("raw_base64"):
        return base64.b64decode(encoded).decode("utf-8", "backslashreplace")
    if found.get("raw") is not None:
        return str(found["raw"])
    if found["trust"] == "quarantined":
        return "(the body was removed when this was dropped from the quarantine)"
    return "(the body was past its time and was removed: upcall store prune)"


def print_block(text: str) -> None:
    """Print a text of many lines, each one set in, so that none of them passes for a line of ours."""
    for part in text.rstrip().splitlines():
        line(f"{'':{_LABEL}}{visible(part)}")


def _said(found: Mapping[str, Any], name: str, value: str) -> str:
    if name == "trust" and found["evidence"]:
        return f"{value} ({found['evidence']})"
    if name == "duplicate":
        return f"{value} ({found['duplicate_words']})"
    return value


def _print_entry(name: str, entry: str | dict[str, Any]) -> None:
    if isinstance(entry, str):
        _labelled(name, entry)
        return
    plain = {key: value for key, value in entry.items() if key not in {"error", "replays", "listed"}}
    words = [f"{key}={value}" for key, value in plain.items() if value is not None]
    if listed := _LISTED.get(entry.get("listed")):
        words.append(listed)
    _labelled(name, "  ".join(words))
    if entry.get("error"):
        print_block(str(entry["error"]).strip().splitlines()[-1])
    for replay in entry.get("replays", ()):
        print_block(replay_words(replay))


def _labelled(name: str, text: str) -> None:
    line(f"{name:{_LABEL - 1}} {visible(text)}")


def _delivery_document(delivery: Delivery) -> dict[str, Any]:
    return {
        "received_at": _time(delivery.received_at),
        "peer": delivery.peer,
        "source": delivery.source,
        "listed": delivery.listed,
        "token_id": delivery.token_id,
        "answer": delivery.answer,
    }


def _raw(body: bytes | None) -> dict[str, str | None]:
    """Return the body as received, a V1 password aside; base64 where it is no UTF-8."""
    from upcall.redact import blank_password

    if body is None:
        return {"raw": None}
    shown = blank_password(body)
    try:
        return {"raw": shown.decode("utf-8")}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(shown).decode("ascii")}


def _time(micros: int | None) -> str | None:
    from upcall.thingspace import text_of_micros

    return None if micros is None else text_of_micros(micros)
