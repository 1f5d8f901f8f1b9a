"""The agenda: things happen when they are due, in order."""

import asyncio

from upcall.sandbox.clock import Agenda, ManualClock, RealClock


def test_due_in_order():
    """What is due happens in the order of its time, then of its planning; what is not due waits."""
    clock = ManualClock(0.0)
    agenda = Agenda(clock)
    done = []
    for when, name in [(2.0, "c"), (1.0, "a"), (1.0, "b"), (5.0, "late")]:
        agenda.at(when, lambda name=name: done.append(name))
    assert (agenda.run_due(), agenda.next_due()) == (0, 1.0)
    clock.move_to(2.0)
    assert agenda.run_due() == 3
    assert done == ["a", "b", "c"]
    clock.move_to(0.0)
    assert clock.now() == 2.0


async def test_an_earlier_entry_wakes_the_agenda():
    """An agenda that waits for a far entry runs a nearer one that is planned meanwhile."""
    agenda = Agenda(RealClock())
    agenda.at(agenda.clock.now() + 3600, lambda: None)
    running = asyncio.create_task(agenda.run())
    await asyncio.sleep(0)
    happened = asyncio.Event()
    agenda.at(agenda.clock.now(), happened.set)
    async with asyncio.timeout(5):
        await happened.wait()
    running.cancel()
