"""``upcall store prune|forget|unsubscribe``: let go of what is old, may not be kept, or is out of service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from upcall.cli.deciding import EXIT_NO, YesOption, agrees
from upcall.cli.listing import newest_id
from upcall.cli.moments import words_of_count
from upcall.cli.output import JsonOption, StoreOption, emit, error_console, line, log, progress_bar
from upcall.cli.selecting import now_micros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

    from upcall.inbox import Forgotten, Inbox, Pruned, Retention

__all__ = ["forget", "prune", "unsubscribe"]

_DAY_SECONDS: Final = 86_400.0
_LEAST_PAUSE_SECONDS: Final = 0.01
_REMAINS: Final = (
    "An identifier can remain in: backups, a spool, files that --jsonl or `upcall events export` wrote, what was"
    " forwarded, the provider's own records, and bodies that spell it in another way. A later callback brings it back."
)


def prune(
    *,
    store: StoreOption = None,
    body_days: Annotated[
        float, typer.Option("--body-days", min=0, max=36_500, help="How long bodies are kept, from receipt.")
    ] = 90,
    record_days: Annotated[
        float, typer.Option("--record-days", min=0, max=36_500, help="How long all else is kept.")
    ] = 400,
    json: JsonOption = False,
) -> None:
    """Remove what is older than its time, in steps so small that no callback waits for them.

    What is undone, dead, in quarantine or unread stays, however old it is. Digests outlive bodies.
    """
    from upcall.cli.reading import reading
    from upcall.errors import SettingsError
    from upcall.inbox import Retention

    if record_days < body_days:
        raise SettingsError(
            f"--record-days is {record_days:g}, and --body-days is {body_days:g}.",
            hint="Records are kept at least as long as bodies.",
        )
    retention = Retention(body_seconds=body_days * _DAY_SECONDS, record_seconds=record_days * _DAY_SECONDS)
    with reading(store) as inbox:
        total = _prune(inbox, retention)
    if json:
        emit(total)
        return
    line(
        f"removed {words_of_count(total['bodies'], 'body', 'bodies')} older than {body_days:g} days, and"
        f" {words_of_count(total['callbacks'], 'callback')} and {words_of_count(total['campaigns'], 'campaign')}"
        f" older than {record_days:g} days."
    )
    if total["kept"]:
        log(
            f"upcall: past their time, and kept: {words_of_count(total['kept'], 'callback')} undone, dead, in"
            " quarantine or unread. See: upcall events list --oldest; upcall dead list; upcall quarantine list"
        )


def _prune(inbox: Inbox, retention: Retention) -> dict[str, int]:
    now = now_micros()
    total = {"bodies": 0, "callbacks": 0, "campaigns": 0, "kept": 0}
    with error_console().status("removing what is old…") as status:
        for step in _prune_steps(inbox, retention, now):
            for name in ("bodies", "callbacks", "campaigns"):
                total[name] += getattr(step, name)
            total["kept"] = step.kept
            status.update(f"removing what is old… {total['bodies']} bodies, {total['callbacks']} callbacks")
    return total


def _prune_steps(inbox: Inbox, retention: Retention, now: int) -> Iterator[Pruned]:
    more = True
    while more:
        started = time.monotonic()
        step = inbox.prune(retention, now)
        yield step
        more = step.more
        _pause(started)


def forget(
    device_id: Annotated[str, typer.Argument(metavar="IMEI", help="The device's identifier, as callbacks spell it.")],
    *,
    store: StoreOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> int:
    """Remove a device's identifier from bodies, work, errors and campaigns, for good; exit 1 where nothing held it."""
    from upcall.cli.reading import reading
    from upcall.errors import SettingsError, UpcallError
    from upcall.redact import mask_device

    if not device_id.strip():
        raise SettingsError("The identifier is empty.", hint="Give the device's IMEI.")
    with reading(store) as inbox:
        question = f"Remove device {mask_device(device_id)} from {inbox.url} for good?"
        if not agrees(question, yes=yes, command="store forget"):
            raise UpcallError("Nothing was forgotten.")
        total = _forget(inbox, device_id)
    found = total["bodies"] + total["work"] + total["devices"]
    if json:
        emit({**total, "remains": _REMAINS})
    else:
        line(
            f"looked at {words_of_count(total['looked_at'], 'callback')}: blanked the identifier in"
            f" {words_of_count(total['bodies'], 'body', 'bodies')}, removed"
            f" {words_of_count(total['work'], 'piece', 'pieces')} of work, and took the device out of"
            f" {words_of_count(total['devices'], 'campaign')}."
        )
        log(f"upcall: {_REMAINS}")
    return 0 if found else EXIT_NO


def _forget(inbox: Inbox, device_id: str) -> dict[str, Any]:
    total = {"looked_at": 0, "bodies": 0, "work": 0, "devices": 0}
    with progress_bar(error_console(), transient=True) as bar:
        task = bar.add_task("forgetting", total=newest_id(inbox))
        for step in _forget_steps(inbox, device_id, bar, task):
            for name in total:
                total[name] += getattr(step, name)
    return total


def _forget_steps(inbox: Inbox, device_id: str, bar: Progress, task: TaskID) -> Iterator[Forgotten]:
    now = now_micros()
    after: int | None = 0
    while after is not None:
        started = time.monotonic()
        step = inbox.forget(device_id, now, after=after)
        yield step
        after = step.next_id
        if after is not None:
            bar.update(task, completed=after)
            _pause(started)


def unsubscribe(
    name: Annotated[str, typer.Argument(metavar="HANDLER", help="A handler that does not run any more.")],
    *,
    store: StoreOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Forget a handler that was taken out of service, with its work that is not done: so that retention goes on.

    Where it runs again it is new, and begins where the furthest handler stands or stood.
    """
    from upcall.cli.reading import reading
    from upcall.errors import UpcallError

    with reading(store) as inbox:
        known = {subscriber.name: subscriber for subscriber in inbox.subscribers()}
        if name not in known:
            raise UpcallError(
                f"no handler {name} is known in {inbox.url}.", hint="upcall store check names those that are."
            )
        left = known[name].pending + known[name].leased + known[name].dead
        question = f"Forget {name}, and {left} pieces of its work that are not done?"
        if not agrees(question, yes=yes, command="store unsubscribe"):
            raise UpcallError(f"{name} was left alone.")
        removed = inbox.unsubscribe(name)
    if json:
        emit({"handler": name, "removed": removed})
    else:
        line(f"forgot {name}, and {removed} pieces of its work that were not done.")


def _pause(started: float) -> None:
    """Leave the store to others for as long as the last step had it."""
    time.sleep(max(_LEAST_PAUSE_SECONDS, time.monotonic() - started))
