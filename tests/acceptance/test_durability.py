"""What was answered 200 is in the store, whatever happens to the process afterwards."""

import asyncio
import contextlib
import itertools
import json
import random
import signal
import sqlite3

import httpx2
import pytest


def bodies(count=None):
    """Return distinct callbacks."""
    return (
        b'{"type": "upgradeProgress", "accountName": "0000123456-00001", "serial": %d}' % serial
        for serial in (itertools.count() if count is None else range(count))
    )


def serial(body):
    return json.loads(body)["serial"]


def stored(upcall):
    """Return each stored body, after checking the file's own health."""
    with contextlib.closing(sqlite3.connect(upcall.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [body for (body,) in connection.execute("SELECT body FROM callbacks ORDER BY id")]


async def test_twenty_kills_under_load(upcall, sender):
    """No kill loses an acknowledged callback or makes two of one, though every second sender sends again."""
    chance = random.Random(20)
    listener = upcall.listen()
    port = listener.port
    running = sender(port, connections=16)
    stopping = False

    def until_stopped():
        for body in bodies():
            if stopping:
                return
            yield body

    sending = asyncio.ensure_future(
        running.send(until_stopped(), resend=lambda body: not stopping and serial(body) % 2 == 0)
    )
    for _ in range(20):
        await running.reaches(len(running.acknowledged) + chance.randrange(1, 150))
        listener.kill()
        listener = await asyncio.to_thread(upcall.listen, port=port)
    await running.reaches(len(running.acknowledged) + 50)
    stopping = True
    await sending
    assert listener.end() == 0

    kept = stored(upcall)
    assert len(kept) == len(set(kept))
    assert set(kept) >= set(running.acknowledged)
    assert len(running.acknowledged) >= 20
    assert running.refused == []
    # What is in the store was sent, and what was sent again until it was acknowledged is there.
    assert set(map(serial, kept)) <= set(map(serial, [*running.acknowledged, *running.unanswered]))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_an_ordered_end_under_load(upcall, sender, number, code):
    """Asked to end it answers what it accepted: nothing is kept whose sender was told nothing."""
    listener = upcall.listen()
    running = sender(listener.port, connections=16)
    sending = asyncio.ensure_future(running.send(bodies(5000)))
    await running.reaches(200)
    assert await asyncio.to_thread(listener.end, number) == code
    await sending
    assert running.unanswered, "it did not end under load"
    assert set(stored(upcall)) == set(running.acknowledged)
    assert "Traceback" not in listener.errors.read_text()


async def test_a_thousand_parallel_copies_have_one_effect(upcall, sender):
    """Copies that come together are one callback, which one handler call answers, and each delivery is counted."""
    upcall.handlers("@app.on()\ndef note(event):\n    (HERE / 'effects').open('a').write(f'{event.id}\\n')\n")
    listener = upcall.listen()
    running = sender(listener.port, connections=200)
    await running.send([next(bodies())] * 1000)
    assert len(running.acknowledged) == 1000
    assert upcall.run("work", "handlers:app", "--store", upcall.store, "--until-idle").returncode == 0
    (record,) = upcall.json("events", "list")
    assert (record["deliveries"], record["state"]) == (1000, "done")
    assert upcall.read("effects") == ["1"]


def test_the_same_body_on_day_0_and_on_day_20(upcall):
    """What comes again after the redelivery window happened again: it has an effect and a key of its own."""
    import time

    from upcall.inbox import Arrival, open_inbox

    upcall.handlers("@app.on()\ndef note(event):\n    (HERE / 'effects').open('a').write(event.key + '\\n')\n")
    body = next(bodies())
    day_0 = time.time_ns() // 1000 - 20 * 24 * 3600 * 1_000_000
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body=body, received_at=day_0)])
    listener = upcall.listen()
    assert httpx2.post(listener.url, content=body).status_code == 200
    assert upcall.run("work", "handlers:app", "--store", upcall.store, "--until-idle").returncode == 0
    assert len(set(upcall.read("effects"))) == len(upcall.read("effects")) == 2
    first, second = upcall.json("events", "list")
    assert (first["duplicate"], second["duplicate"]) == ("first", "repeat")
    assert (first["raw"], first["deliveries"]) == (second["raw"], second["deliveries"]) == (body.decode(), 1)
