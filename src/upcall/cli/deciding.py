"""How commands that change what is stored ask, count, say what they did, and come to an exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from upcall.cli.moments import words_of_count
from upcall.cli.output import emit, error_console, line, log, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["EXIT_NO", "Deed", "DryRunOption", "YesOption", "agrees", "carry_out"]

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do it, without asking.")]

EXIT_NO = 1


class Deed:
    """Describe a change of many things: the words for it, how many it is, and how it is done.

    Args:
        verb: What is done, such as ``release``.
        past: The same when it was done, such as ``released``; also the JSON key.
        nouns: What it is done to, one and many, such as ``("callback", "callbacks")``.
        count: Returns how many it would be.
        steps: Does it, yielding after each step how many that step was.
        missing: What to say where there is none.
        absent: What to say of each that was named and is none of them.
    """

    def __init__(
        self,
        verb: str,
        past: str,
        nouns: tuple[str, str],
        *,
        count: Callable[[], int],
        steps: Callable[[], Iterable[int]],
        missing: str,
        absent: Sequence[str] = (),
    ) -> None:
        self.verb = verb
        self.past = past
        self.nouns = nouns
        self.count = count
        self.steps = steps
        self.missing = missing
        self.absent = absent

    def of(self, number: int) -> str:
        """Return so many of them, in words."""
        return words_of_count(number, *self.nouns)


def carry_out(deed: Deed, *, bulk: bool, dry_run: bool, yes: bool, json: bool) -> int:
    """Count, and then do it where that was asked for.

    Args:
        deed: What.
        bulk: Whether more is meant than what was named by its number: then it takes ``--yes``.
        dry_run: Whether only to count.
        yes: Whether ``--yes`` was given.
        json: Whether to speak JSON.

    Returns:
        The exit code: 1 where nothing matched, or something that was named did not.

    Raises:
        SettingsError: It is a bulk change, and neither was given.
    """
    from upcall.errors import SettingsError

    matched = deed.count()
    if dry_run:
        _say(deed, matched, 0, dry_run=True, json=json)
        return _code(deed, matched)
    if matched and bulk and not yes:
        raise SettingsError(
            f"This would {deed.verb} {deed.of(matched)}; nothing was changed.",
            hint="To go ahead: the same with --yes. --dry-run only counts.",
        )
    done = _do(deed, matched) if matched else 0
    _say(deed, matched, done, dry_run=False, json=json)
    return _code(deed, done)


def _code(deed: Deed, done: int) -> int:
    return EXIT_NO if deed.absent or not done else 0


def _do(deed: Deed, matched: int) -> int:
    done = 0
    with progress_bar(error_console(), transient=True) as bar:
        task = bar.add_task(deed.verb, total=matched)
        for step in deed.steps():
            done += step
            bar.update(task, completed=min(done, matched))
    return done


def _say(deed: Deed, matched: int, done: int, *, dry_run: bool, json: bool) -> None:
    for text in deed.absent or ((deed.missing,) if not matched else ()):
        log(f"upcall: {text}")
    if json:
        emit({"matched": matched, deed.past: done, "dry_run": dry_run})
    elif not matched:
        return
    elif dry_run:
        line(f"would {deed.verb} {deed.of(matched)}; nothing was changed.")
    else:
        line(f"{deed.past} {deed.of(done)}.")


def agrees(question: str, *, yes: bool, command: str) -> bool:
    """Ask a person on the terminal, unless ``--yes`` was given.

    Args:
        question: What is asked.
        yes: Whether ``--yes`` was given.
        command: The command's name, for the error.

    Raises:
        SettingsError: There is no terminal to ask on.
    """
    from upcall.errors import SettingsError

    if yes:
        return True
    if not sys.stdin or not sys.stdin.isatty():
        raise SettingsError(f"{command} asks first, and there is no terminal to ask on.", hint="To go ahead: --yes")
    return typer.confirm(question, err=True)
