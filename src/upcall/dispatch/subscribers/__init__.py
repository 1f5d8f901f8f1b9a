"""Subscribers without code: forward over HTTP, run a command, append to a file."""

from upcall.dispatch.subscribers.options import subscribers_from_options

__all__ = ["subscribers_from_options"]
