"""A disk that keeps nothing but what was synced, made from the log that powerlog.c writes.

Replaying a beginning of the log and laying out what is on disk then gives what a power cut at that moment would have
left. The model is the worst that POSIX allows:

* Of a file's content only what was written before an fsync or fdatasync of it began, and that returned 0, is there.
* A name that was made, removed or changed is so on disk only after an fsync of its directory. (Linux file systems are
  kinder: an fsync of a new file keeps its name too.)
* With `luck`, of what was not synced some is there all the same: any sectors of any writes, in any order, and the first
  changes of a directory, in their order, as journals keep it.
* What an fsync that failed was to write is never written, and no later fsync says so: of all that was written to the
  file since the one before, nothing is there unless it is written anew.
* What was synced stays. A disk that lies about it is another subject.
"""

import re
import struct
from collections import defaultdict
from typing import NamedTuple

HEAD = struct.Struct("=IIQQQ")
SECTOR_BYTES = 512

_STATUS = re.compile(rb"HTTP/1\.1 (\d+)")


class Record(NamedTuple):
    """Hold one entry of the log; powerlog.c says what each operation carries."""

    operation: str
    thread: int
    file: int
    at: int
    data: bytes


def read_log(path):
    """Return the entries of a log; one that a kill cut off is none."""
    content = path.read_bytes() if path.exists() else b""
    records = []
    offset = 0
    while offset + HEAD.size <= len(content):
        operation, thread, file, at, size = HEAD.unpack_from(content, offset)
        offset += HEAD.size
        if offset + size > len(content):
            break
        records.append(Record(chr(operation), thread, file, at, content[offset : offset + size]))
        offset += size
    return records


class File:
    """Hold a file's content on disk, and the changes that are not there yet, each with when it was made."""

    def __init__(self, content=b""):
        self.durable = bytearray(content)
        self.pending = []

    def settle(self, before):
        for _, change in [entry for entry in self.pending if entry[0] < before]:
            change_content(self.durable, *change)
        self.pending = [entry for entry in self.pending if entry[0] >= before]

    def fail(self):
        """Lose what an fsync was to write; how long the file is stands elsewhere."""
        self.pending = [entry for entry in self.pending if entry[1][1] is None]

    def lay_out(self, target, luck):
        content = bytearray(self.durable)
        for _, (at, data) in self.pending if luck else ():
            if data is None and luck.random() < 0.5:
                change_content(content, at, None)
            for start in range(0, len(data or b""), SECTOR_BYTES):
                if luck.random() < 0.5:
                    change_content(content, at + start, data[start : start + SECTOR_BYTES])
        target.write_bytes(content)


class Directory:
    """Hold a directory's names on disk, and the changes that are not there yet."""

    def __init__(self):
        self.durable = {}
        self.pending = []

    def settle(self, before):
        for _, change in [entry for entry in self.pending if entry[0] < before]:
            change_names(self.durable, *change)
        self.pending = [entry for entry in self.pending if entry[0] >= before]

    def lay_out(self, target, luck):
        names = dict(self.durable)
        for _, change in self.pending[: luck.randint(0, len(self.pending))] if luck else ():
            change_names(names, *change)
        target.mkdir()
        for name, node in names.items():
            node.lay_out(target / name, luck)


def change_content(content, at, data):
    """Write data at an offset; cut off there, or lengthen to there, where the data are None."""
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    if data is None:
        del content[at:]
    else:
        content[at : at + len(data)] = data


def change_names(names, old, new, node):
    """Take away a name, and give one."""
    if old is not None:
        names.pop(old, None)
    if new is not None:
        names[new] = node


class Disk:
    """Follow a log through the directory that it is about.

    Args:
        directory: It, as it is before the log begins; all of that is on disk.
    """

    def __init__(self, directory):
        self.root = Directory()
        self.position = 0
        self._inodes = {directory.stat().st_ino: self.root}
        self._names = {"": self.root}
        self._syncs = {}
        for path in sorted(directory.rglob("*")):  # a directory before what is in it
            self._seed(path, f"/{path.relative_to(directory)}")

    def _seed(self, path, name):
        node = Directory() if path.is_dir() else File(path.read_bytes())
        self._inodes[path.stat().st_ino] = self._names[name] = node
        place, _, last = name.rpartition("/")
        self._names[place].durable[last] = node

    def follow(self, records):
        """Carry out more entries of the log."""
        for record in records:
            self.position += 1
            self._carry_out(record)

    def lay_out(self, target, luck=None):
        """Write what is on disk now into a new directory.

        Args:
            target: Where.
            luck: A `random.Random`, where some of what was not synced is to be there too.
        """
        self.root.lay_out(target, luck)

    def _carry_out(self, record):
        match record.operation:
            case "C" | "D":
                node = File() if record.operation == "C" else Directory()
                self._inodes[record.file] = node
                self._rename(None, record.data.decode(), node)
            case "U" | "X":
                self._rename(record.data.decode(), None, None)
            case "R":
                old, new = record.data.decode().split("\0")
                self._rename(old, new, self._names[old])
            case "W" | "T":
                data = record.data if record.operation == "W" else None
                self._inodes[record.file].pending.append((self.position, (record.at, data)))
            case "B":
                self._syncs[record.thread, record.file] = self._inodes[record.file], self.position
            case "F":
                self._inodes[record.file].fail()
            case "E":
                node, began = self._syncs.pop((record.thread, record.file))
                node.settle(began)

    def _rename(self, old, new, node):
        place, _, name = (old or new).rpartition("/")
        other, _, new_name = (new or old).rpartition("/")
        if place != other:
            raise NotImplementedError(f"{old} moved to another directory, {new}")
        change_names(self._names, old, new, node)
        change = (name if old else None, new_name if new else None, node)
        self._names[place].pending.append((self.position, change))


class Traffic:
    """Follow a log through the connections: which markers were answered 200.

    Args:
        marker: What to find in requests, with one group that tells them apart; one a request.
    """

    def __init__(self, marker):
        self.acknowledged = []
        self._marker = marker
        self._asked = defaultdict(bytes)

    def follow(self, records):
        """Look at more entries of the log."""
        for record in records:
            if record.operation == "A":
                self._asked[record.file] = b""
            elif record.operation == "I":
                self._asked[record.file] += record.data
            elif record.operation == "O":
                for status in _STATUS.findall(record.data):
                    self._answer(record.file, status)

    def _answer(self, connection, status):
        found = self._marker.search(self._asked[connection])
        if found is None:
            raise AssertionError(f"an answer {status!r} to nothing that was asked")
        self._asked[connection] = self._asked[connection][found.end() :]
        if status == b"200":
            self.acknowledged.append(found[1])
