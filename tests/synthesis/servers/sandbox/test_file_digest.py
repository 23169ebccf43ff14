"""What servers leave in the sandbox: everything has a digest, and nothing is waited for or unpacked without end."""

import os
import socket
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from synthesis.servers.sandbox import file_digest
from synthesis.servers.sandbox.file_digest import content
from synthesis.servers.sandbox.launcher import Isolation
from synthesis.servers.sandbox.workspace import Workspace


def archive(path: Path, data: bytes = b"words", name: str = "member.txt") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, data)


def damaged(path: Path) -> None:
    archive(path, os.urandom(200))
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)


def marked(offset_local: int, offset_central: int, value: int) -> Callable[[Path], None]:
    """An archive whose two headers say `value` at these offsets."""

    def make(path: Path) -> None:
        archive(path)
        data = bytearray(path.read_bytes())
        data[offset_local] = value
        data[data.index(b"PK\x01\x02") + offset_central] = value
        path.write_bytes(data)

    return make


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


ODD: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": listening,
    "damaged archive": damaged,
    "encrypted archive": marked(6, 8, 1),
    "archive of an unknown method": marked(8, 10, 9),
    "no archive": lambda path: path.write_bytes(b"PK\x03\x04 not really PK\x05\x06" + b"\0" * 18) and None,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "empty": Path.touch,
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_whatever_lies_there_has_a_digest(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    assert content(tmp_path / "x", tmp_path) == content(tmp_path / "x", tmp_path) != ""


def test_what_is_gone_has_none(tmp_path: Path) -> None:
    assert content(tmp_path / "gone", tmp_path) == ""


def test_an_archive_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digest, "MOST", 1 << 20)
    archive(tmp_path / "bomb.zip", bytes(64 << 20))
    tracemalloc.start()
    assert content(tmp_path / "bomb.zip", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_state_with_names_that_are_no_text_has_a_digest(tmp_path: Path) -> None:
    with Workspace(None, None, Isolation()) as workspace:
        assert workspace.state() == ""
        subprocess.run(["touch", os.fsencode(workspace.data) + b"/\xff\xfe"], check=True)
        os.mkfifo(workspace.data / "pipe")
        first = workspace.state()
        assert first
        assert workspace.reset()
        assert workspace.state() == ""


def test_what_cannot_be_copied_is_in_nobodys_way(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in the template")
    with Workspace(tmp_path, None, Isolation()) as workspace:
        os.mkfifo(workspace.data / "made at the start")
        workspace.settle()
        (workspace.data / "made at the start").unlink()
        workspace.reset()
        assert workspace.state() == ""
