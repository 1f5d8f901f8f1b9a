"""A command that looks reads what there is when it begins, and comes to an end."""

from upcall.cli.reading import catch_up, reading
from upcall.inbox import Arrival, open_inbox


def arrival(number: int) -> Arrival:
    return Arrival(body=b'{"type":"upgradeProgress","n":%d}' % number, received_at=number)


def test_a_look_ends_while_callbacks_keep_coming(tmp_path, monkeypatch):
    """Where more comes than a look can read meanwhile, it still ends, with all that was there when it began."""
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as inbox:
        inbox.append([arrival(number) for number in range(10)])
        project, came = inbox.project, iter(range(10, 500))

        def projecting(**options):
            inbox.append([arrival(next(came)) for _ in range(4)])
            return project(**options, limit=3)

        monkeypatch.setattr(inbox, "project", projecting)
        catch_up(inbox)
        kinds = [record.kind for record in inbox.callbacks(limit=10, oldest=True)]
        assert kinds == ["upgradeProgress"] * 10
        assert len(inbox.callbacks()) > 10


def test_reading_begins_with_all_that_is_there(tmp_path):
    """What a listener has stored and nobody has read yet is known to the first look at it."""
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as inbox:
        inbox.append([arrival(number) for number in range(2500)])
    with reading(str(tmp_path / "inbox.db")) as inbox:
        assert {record.kind for record in inbox.callbacks()} == {"upgradeProgress"}
