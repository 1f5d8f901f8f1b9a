"""Handing on: handlers, retries, dead letters."""

from upcall.dispatch.handlers import Handler, HandlerTable
from upcall.dispatch.schedule import RetrySchedule, retry_delay_seconds
from upcall.dispatch.worker import Worker, WorkerStats

__all__ = ["Handler", "HandlerTable", "RetrySchedule", "Worker", "WorkerStats", "retry_delay_seconds"]
