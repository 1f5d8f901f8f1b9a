"""Receiving: size, token, durable append, answer, in that order; no user code before the answer.

The server that runs it stands in `upcall.listener.server`, which needs the extra ``server``.
"""

from upcall.listener.asgi import ListenerApp, ListenerStats
from upcall.listener.gate import Gate, Token, generate_token, parse_tokens
from upcall.listener.intake import Intake

__all__ = [
    "Gate",
    "Intake",
    "ListenerApp",
    "ListenerStats",
    "Token",
    "generate_token",
    "parse_tokens",
]
