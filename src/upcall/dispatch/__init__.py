"""Handing on: handlers, retries, dead letters."""

from upcall.dispatch.control import GiveUp, RetryLater
from upcall.dispatch.handlers import Handler, HandlerTable
from upcall.dispatch.schedule import RetrySchedule, retry_delay_seconds
from upcall.dispatch.worker import Worker, WorkerStats

__all__ = [
    "GiveUp",
    "Handler",
    "HandlerTable",
    "RetryLater",
    "RetrySchedule",
    "Worker",
    "WorkerStats",
    "retry_delay_seconds",
]
