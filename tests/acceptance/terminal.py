"""Commands as somebody sees them who sits before a terminal."""

import os
import pty
import subprocess
import sys
import tempfile


def run_on_a_terminal(words, environment, directory):
    """Run a command of `upcall` whose stderr is a terminal; return its exit code, its stdout, and what was seen."""
    leader, follower = pty.openpty()
    with (
        tempfile.TemporaryFile() as stdout,  # a pipe that nobody reads meanwhile is soon full
        subprocess.Popen(
            [sys.executable, "-m", "upcall", *words],
            env=environment | {"TERM": "xterm", "COLUMNS": "120"},
            cwd=directory,
            stdout=stdout,
            stderr=follower,
        ) as process,
    ):
        os.close(follower)
        seen = b""
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # the other end was closed
                break
            if not chunk:
                break
            seen += chunk
        process.wait()
        stdout.seek(0)
        data = stdout.read()
    os.close(leader)
    return process.returncode, data.decode(), seen.decode()
