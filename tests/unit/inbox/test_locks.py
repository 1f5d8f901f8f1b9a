"""What one process does to a store's files while another of its connections is using them."""

import subprocess
import sys

from upcall.inbox import Arrival, open_inbox


def test_opening_a_store_twice_keeps_the_hold_on_it(tmp_path):
    """The log stays under a listener whose process opens the store again, when another process comes and leaves."""
    url = f"sqlite:///{tmp_path / 'inbox.db'}"
    with open_inbox(url, create=True) as inbox:
        appender = inbox.appender()
        appender.stage([Arrival(body=b"1", received_at=1)])
        appender.commit()
        open_inbox(url, create=True).close()
        other = f"from upcall.inbox import open_inbox; open_inbox({url!r}).close()"
        subprocess.run([sys.executable, "-c", other], check=True)

        assert (tmp_path / "inbox.db-wal").exists()
        appender.stage([Arrival(body=b"2", received_at=2)])
        appender.commit()
        appender.close()
        assert [record.body for record in inbox.callbacks()] == [b"1", b"2"]
