"""What a file holds, apart from the clock and the place of the sandbox: to tell whether two calls did the same.

Servers leave what they like: pipes that never end, archives that are none or that unpack to gigabytes, files that are
gone before they are read. Each has a digest; none is waited for, and none is held in memory beyond `MOST`.
"""

import hashlib
import os
import re
import stat
import zipfile
import zlib
from pathlib import Path

MOST = 64 << 20
"""Bytes of a file, or of all members of an archive, that are looked into; larger ones count byte for byte."""
_CLOCK = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?")
_UNREADABLE = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, ValueError, OSError)
"""What `zipfile` raises for archives that are damaged, encrypted or packed in a way that it does not know."""


def content(path: Path, root: Path) -> str:
    """Digest of a file, link or folder; empty where there is nothing, or nothing any more.

    Of a zip archive (.xlsx, .docx, .pptx) the members count, with moments of time left out; in any file, `root` counts
    as `/data`.
    """
    try:
        return _content(path, root)
    except FileNotFoundError:
        return ""
    except PermissionError:
        return "locked"


def _content(path: Path, root: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "link " + os.readlink(path)
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    if not stat.S_ISREG(status.st_mode):
        return f"special {stat.S_IFMT(status.st_mode):o}"
    if status.st_size > MOST:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    members = _members(path, root)
    return _hash(path.read_bytes(), root) if members is None else _hash(members, root)


def _members(path: Path, root: Path) -> bytes | None:
    """Names and digests of an archive's members; None for a file that is no archive, or none that can be read."""
    if not zipfile.is_zipfile(path):
        return None
    members, left = [], MOST
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                with archive.open(name) as file:
                    data = file.read(left + 1)
                left -= len(data)
                if left < 0:
                    return None
                members.append((name, _hash(_CLOCK.sub(b"", data), root)))
    except _UNREADABLE:
        return None
    return repr(members).encode()


def _hash(data: bytes, root: Path) -> str:
    return hashlib.sha256(data.replace(os.fsencode(root), b"/data")).hexdigest()[:16]
