"""Delivery profiles by their name, or from a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.errors import SettingsError
from upcall.settings.places import expanded, is_profile_file
from upcall.settings.toml import read_toml
from upcall.thingspace import PROFILES, Profile

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_profile"]

_MAX_CONCURRENCY: Final = 1000
_MAX_SECONDS: Final = 30 * 86_400.0


def read_profile(text: str, *, home: Path | None = None) -> Profile:
    """Return a built-in profile by its name, or read one from a file.

    Args:
        text: ``documented``, ``observed``, or a path that ends in ``.toml``.
        home: The directory that a path counts from, None for the working directory.

    Raises:
        SettingsError: There is none of that name, or the file is not sound.
    """
    if not is_profile_file(text):
        return _named(text)
    path = (home or Path()) / expanded(text)
    try:
        return _checked({"name": path.stem} | read_toml(path))
    except SettingsError as error:
        raise SettingsError(f"{text}: {error.message}", hint=error.hint) from None


def _named(name: str) -> Profile:
    profile = PROFILES.get(name)
    if profile is None:
        known = ", ".join(sorted(PROFILES))
        raise SettingsError(
            f"There is no delivery profile {name!r}.", hint=f"Available: {known}, or a file that ends in .toml."
        )
    return profile


def _checked(document: dict[str, Any]) -> Profile:
    """Make a profile of a file's members; a gap may also be one number, for its shortest and its longest wait."""
    gaps = document.get("gaps_seconds")
    if isinstance(gaps, list):
        document = document | {"gaps_seconds": [gap if isinstance(gap, list) else [gap, gap] for gap in gaps]}
    try:
        profile = msgspec.convert(document, Profile)
    except msgspec.ValidationError as error:
        raise _unsound(str(error)) from None
    for why in _faults(profile):
        raise _unsound(why)
    return profile


def _faults(profile: Profile) -> Iterator[str]:
    """Say what no provider could do."""
    seconds = [bound for gap in profile.gaps_seconds for bound in gap]
    seconds += [profile.connect_timeout_seconds, profile.answer_timeout_seconds, profile.silence_seconds or 0.0]
    if not all(math.isfinite(value) and 0 <= value <= _MAX_SECONDS for value in seconds):
        yield f"seconds are from 0 to {_MAX_SECONDS:.0f}"
    if any(shortest > longest for shortest, longest in profile.gaps_seconds):
        yield "a gap's shortest wait is longer than its longest"
    if min(profile.connect_timeout_seconds, profile.answer_timeout_seconds) <= 0 or profile.silence_seconds == 0:
        yield "a time limit is above 0"
    if profile.silence_seconds is not None and profile.silence_seconds >= profile.answer_timeout_seconds:
        yield "silence_seconds is not below answer_timeout_seconds: no copy would ever be sent"
    if not 1 <= profile.concurrency <= _MAX_CONCURRENCY:
        yield f"concurrency is from 1 to {_MAX_CONCURRENCY}"


def _unsound(why: str) -> SettingsError:
    return SettingsError(
        f"The delivery profile is not sound: {why}.", hint="docs/sandbox.md shows one, with what each member means."
    )
