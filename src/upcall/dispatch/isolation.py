"""Running a handler's coroutine within another task, in a context of its own."""

from __future__ import annotations

import contextvars
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["in_own_context"]


@types.coroutine
def in_own_context(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await a coroutine; what it sets in context variables stays with it.

    A task for each coroutine would do the same at several times the price.
    """
    run = contextvars.copy_context().run
    resume, argument = coroutine.send, None
    while True:
        try:
            waited_for = run(resume, argument)
        except StopIteration as end:
            return end.value
        try:
            resume, argument = coroutine.send, (yield waited_for)
        except BaseException as error:  # noqa: BLE001 - whatever is thrown in is the coroutine's to answer
            resume, argument = coroutine.throw, error
