"""What the guard counts: plain figures, written by the guard, read by whoever shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

__all__ = ["STATES", "GuardFigures", "families"]

STATES: Final = ("in_order", "drifted", "none", "unreachable", "given_up", "unknown")
"""The states of an account, in the order in which they are shown."""


class GuardFigures(msgspec.Struct, kw_only=True):
    """Count accounts by how they stand, and what the guard did since it started.

    Args:
        accounts: How many accounts are in each of `STATES`.
        last_round_at: When the last whole round ended, UTC microseconds; 0 for never.
        rounds: Whole rounds.
        failed_rounds: Rounds that came to no end: the store failed, or another writer was at the registrations.
        transitions: Changes that were told.
        reasserted: Slots that were taken back.
        failed_alerts: Alerts that the alerts' URL did not take, after all tries.
    """

    accounts: dict[str, int] = msgspec.field(default_factory=dict)
    last_round_at: int = 0
    rounds: int = 0
    failed_rounds: int = 0
    transitions: int = 0
    reasserted: int = 0
    failed_alerts: int = 0


def families(figures: GuardFigures) -> Iterator[Metric]:
    """Yield the figures as Prometheus names them; none names an account.

    Args:
        figures: The guard's figures.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - for scrapes only

    accounts = GaugeMetricFamily(
        "upcall_registration_accounts", "Accounts, by how their registration stands.", labels=["state"]
    )
    for state in STATES:
        accounts.add_metric([state], figures.accounts.get(state, 0))
    yield accounts
    yield GaugeMetricFamily(
        "upcall_registration_last_round_timestamp_seconds",
        "When the guard last compared all accounts, since 1970.",
        value=figures.last_round_at / 1e6,
    )
    for name, text in _COUNTERS.items():
        yield CounterMetricFamily(f"upcall_registration_{name}", text, value=getattr(figures, name))


_COUNTERS: Final = {
    "rounds": "Times that the guard compared all accounts.",
    "failed_rounds": "Times that it could not.",
    "transitions": "Changes of an account's state that were told.",
    "reasserted": "Slots that were taken back.",
    "failed_alerts": "Alerts that the alerts' URL did not take.",
}
