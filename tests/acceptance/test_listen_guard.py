"""A listener that guards its own registration, by real processes."""

import json
import urllib.request

ACCOUNT = "0000123456-00001"
SANDBOX = {f"THINGSPACE_{name}": "sandbox" for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")}


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=100) as answer:
        return answer.read().decode()


def test_a_stolen_slot_is_taken_back_by_the_listener(upcall, unused_tcp_port_factory):
    """With --guard --reassert another system's URL stands for one round; metrics, events and the journal tell of it."""
    port, admin = unused_tcp_port_factory(), unused_tcp_port_factory()
    sandbox = upcall.start("sandbox", "--port", "0", "--allow-http", "--quiet").wait_until_ready()
    config = upcall.directory / "fleet.toml"
    config.write_text(
        f'[client]\nbase_url = "{sandbox.url}"\nallow_http = true\n'
        "[guard]\nevery_seconds = 1\n"
        f'[[accounts]]\nname = "{ACCOUNT}"\nurl = "http://127.0.0.1:{port}/callbacks/{{token}}"\n'
    )
    upcall.environment |= SANDBOX
    words = ("--config", str(config), "--guard", "--reassert", "--admin", f"127.0.0.1:{admin}")
    listener = upcall.start("listen", "--port", str(port), "--store", upcall.store, *words).wait_until_ready()
    upcall.until(lambda: 'upcall_registration_accounts{state="none"} 1.0' in metrics(admin))
    assert upcall.run("apply", "--config", str(config), "--store", upcall.store, "--yes").returncode == 0
    upcall.until(lambda: 'upcall_registration_accounts{state="in_order"} 1.0' in metrics(admin))

    theirs = "http://127.0.0.1:9/theirs"
    stolen = upcall.run(
        "callbacks", "register", ACCOUNT, "--url", theirs, "--replace", "--allow-http", THINGSPACE_BASE_URL=sandbox.url
    )
    assert stolen.returncode == 0, stolen.stderr
    upcall.until(lambda: "upcall_registration_reasserted_total 1.0" in metrics(admin))
    shown = upcall.run("callbacks", "show", ACCOUNT, "--json", THINGSPACE_BASE_URL=sandbox.url)
    assert json.loads(shown.stdout)["url"] == listener.url
    upcall.until(lambda: len(_told(upcall)) == 4)
    assert [event["state"] for event in _told(upcall)] == ["none", "in_order", "drifted", "in_order"]
    history = upcall.json("callbacks", "history", ACCOUNT)
    writes = [(entry["by"], entry["before"], entry["outcome"]) for entry in history if entry["topic"] == "registration"]
    assert writes == [
        (by, stood, end) for by, stood in (("apply", None), ("guard", theirs)) for end in ("begun", "done")
    ]
    assert [entry["to"] for entry in history if entry["topic"] == "guard"] == [
        "none",
        "in_order",
        "drifted",
        "in_order",
    ]
    assert upcall.run("callbacks", "history", "--store", upcall.store).stdout.count(ACCOUNT) == len(history)
    assert upcall.json("callbacks", "history", "--since", "2000-01-01", "0000000000-00009") == []
    assert listener.end() == 0
    assert listener.url.rpartition("/")[2] not in listener.errors.read_text()


def _told(upcall):
    events = upcall.json("events", "list", "--limit", "0")
    return [json.loads(event["raw"]) for event in events if event["origin"] == "guard"]


def test_a_guard_needs_a_settings_file(upcall):
    """Without accounts to watch there is nothing to guard, and the listener says so before it begins."""
    ended = upcall.run("listen", "--guard", "--store", upcall.store)
    assert ended.returncode == 2
    assert "--guard watches the accounts of a settings file, and none is named. Give --config FILE." in ended.stderr
