"""Receiving: token, method, source, body, durable append, answer, in that order; no user code before the answer.

The server that runs it stands in `upcall.listener.server`, which needs the extra ``server``.
"""

from upcall.listener.asgi import ListenerApp
from upcall.listener.gate import Gate, Token, generate_token, parse_tokens
from upcall.listener.intake import Intake
from upcall.listener.reception import Reception
from upcall.listener.sources import Sources
from upcall.listener.stats import ListenerState, ListenerStats

__all__ = [
    "Gate",
    "Intake",
    "ListenerApp",
    "ListenerState",
    "ListenerStats",
    "Reception",
    "Sources",
    "Token",
    "generate_token",
    "parse_tokens",
]
