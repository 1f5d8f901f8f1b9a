"""Where ThingSpace answers, where its callbacks come from, and which ports it is said to allow."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["CALLBACK_PORTS", "CALLBACK_SOURCES", "ENVIRONMENTS", "PRODUCTION", "DatedList", "Environment"]


class Environment(msgspec.Struct, frozen=True):
    """Name one deployment of ThingSpace by its root.

    Args:
        name: The name that `environment=` takes.
        base_url: The root under which ``/ts``, ``/m2m`` and ``/fota`` lie, without a trailing slash.

    Source: configuration.py of the official SDK 2.0.0 (documented). That outsiders can reach any but
        production is doubtful (inferred).
    """

    name: str
    base_url: str


class DatedList(msgspec.Struct, frozen=True):
    """Keep a published list with where and when it was read, because it drifts.

    Args:
        values: The entries.
        read_on: The day, YYYY-MM-DD.
        source: The page.
        certainty: ``documented``, ``observed`` or ``inferred``.
    """

    values: tuple[str, ...]
    read_on: str
    source: str
    certainty: str


PRODUCTION: Final = Environment("production", "https://thingspace.verizon.com/api")

ENVIRONMENTS: Final = {
    environment.name: environment
    for environment in (
        PRODUCTION,
        Environment("staging", "https://staging.thingspace.verizon.com/api"),
        Environment("dev", "https://devmanagement-staging.thingspace.verizon.com:80"),
        Environment("qa", "https://tsd-nginx-qa-us-east-1.thingspace.verizon.com/api"),
        Environment("mock", "https://mock-staging.thingspace.verizon.com/api"),
    )
}
"""The environments of the official SDK, by name."""

CALLBACK_SOURCES: Final = DatedList(
    values=(
        "3.87.163.45",
        "3.91.119.203",
        "34.216.81.234",
        "35.165.205.14",
        "54.197.62.209",
        "54.200.43.232",
        "68.128.212.217",
        "137.117.33.109",
        "168.62.173.153",
    ),
    read_on="2026-11-22",
    source="'About callback services' of Software Management and of Connectivity Management, both lists joined",
    certainty="documented",
)
"""Addresses from which callbacks are published to come. A filter to flag with, never the only gate."""

CALLBACK_PORTS: Final = DatedList(
    values=("80", "443", "9001-9006", "50551-50559", "28200-28220"),
    read_on="2026-11-22",
    source="Connectivity Management, 'Register callback listener'; that it binds Software Management is inferred",
    certainty="inferred",
)
"""Ports that a listener's URL may use, as published for a sister product."""
