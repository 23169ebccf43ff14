"""The throw-away folder that all servers share, seen by the data as `/data`, and the way back to its first state."""

import contextlib
import os
import posixpath
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from synthesis.errors import UserError
from synthesis.seeds import digest
from synthesis.servers.sandbox.file_digest import content
from synthesis.servers.sandbox.launcher import Isolation, confine

Json = Any
LOGICAL = "/data"
"""The sandbox's name in all data: requests, arguments, results."""
EPOCH_NS = 1_767_225_600 * 10**9
"""Modification time of every template file, 2026-01-01T00:00:00Z, so that results which show file times repeat."""
_LOGICAL_PATH = re.compile(r"(?<![\w.~/-])/data(?![\w-])(?!\.\w)")
_Stamp = tuple[int, ...]


def map_strings(value: Json, change: Callable[[str], str]) -> Json:
    """`value` with `change` applied to every string in it, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {change(key): map_strings(item, change) for key, item in value.items()}
    return value


def template_files(template: Path | None) -> list[str]:
    """Return the logical paths of the files in a sandbox's template, sorted; none without a template."""
    if template is None:
        return []
    found = [path.relative_to(template).as_posix() for path in template.rglob("*") if path.is_file()]
    return [posixpath.join(LOGICAL, path) for path in sorted(found)]


class Workspace:
    """A temporary folder: the servers' `data`, one `home` and `tmp` a server, and the pristine copy of the template.

    `template` is copied and `setup` is run once in the copy; a missing template gives an empty folder. Use as a context
    manager: leaving removes everything. Raises `UserError` when the setup script fails.
    """

    def __init__(self, template: Path | None, setup: Path | None, isolation: Isolation) -> None:
        """Nothing is created before the context is entered."""
        self._template, self._setup, self._isolation = template, setup, isolation
        self._stamps: dict[str, _Stamp] = {}
        self._contents: dict[str, str] = {}
        """Digests of the first state's files, as far as they were asked for."""

    def __enter__(self) -> "Workspace":
        """Create the folder and bring it to its first state."""
        self.root = Path(tempfile.mkdtemp(prefix="rise-")).resolve()
        self.data, self._pristine = self.root / "data", self.root / "pristine"
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the folder and all in it."""
        _stamps(self.root)
        shutil.rmtree(self.root)

    def _prepare(self) -> None:
        if self._template is None:
            self.data.mkdir()
        else:
            shutil.copytree(self._template, self.data, symlinks=True, ignore=_special)
        for path in [self.data, *map(self.data.joinpath, _stamps(self.data))]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | stat.S_IRUSR | stat.S_IWUSR)
        if self._setup is not None:
            self._run_setup(self._setup)
        self.settle()

    def settle(self) -> None:
        """Make the present state of `data` the first state, that is, the one that a reset brings back."""
        if self._pristine.exists():
            if _stamps(self.data) == self._stamps:
                return
            shutil.rmtree(self._pristine)
        self._contents.clear()
        for name in _stamps(self.data):
            os.utime(self.data / name, ns=(EPOCH_NS, EPOCH_NS), follow_symlinks=False)
        shutil.copytree(self.data, self._pristine, symlinks=True, ignore=_special)
        self._stamps = _stamps(self.data)

    def _run_setup(self, setup: Path) -> None:
        private = self.private("setup")
        command = confine(["sh", str(setup)], self._isolation, [self.data, *private.values()], network=False)
        env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "TZ": "UTC", **_home(private)}
        try:
            done = subprocess.run(
                command, cwd=self.data, env=env, capture_output=True, text=True, errors="replace", timeout=120
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{setup}: the sandbox's setup script must end within 120 s") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-800:]
            raise UserError(
                f"{setup}: the sandbox's setup script must succeed, but it ended with {done.returncode}: {said}"
            )

    def private(self, server: str) -> dict[str, Path]:
        """The server's own folders, `home` and `tmp`, created when missing; they outlive restarts and resets."""
        safe = re.sub(r"\W", "_", server)
        folders = {kind: self.root / kind / safe for kind in ("home", "tmp")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return folders

    def environment(self, server: str) -> dict[str, str]:
        """Environment that ties a server to its private folders and takes the machine's habits out of its results."""
        steady = {
            "TZ": "UTC",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**steady, "USER": "user", "LOGNAME": "user", **_home(self.private(server))}

    def inward(self, value: Json) -> Json:
        """`/data` in strings replaced by the real folder."""
        return map_strings(value, lambda text: _LOGICAL_PATH.sub(lambda _: str(self.data), text))

    def outward(self, value: Json) -> Json:
        """The real folder in strings replaced by `/data`, and its neighbours by their tail (`/home/...`)."""
        return map_strings(value, lambda text: text.replace(str(self.data), LOGICAL).replace(str(self.root), ""))

    def reset(self) -> bool:
        """Bring `data` back to its first state; True when something had changed. Touches only what changed."""
        found = _stamps(self.data)
        if found == self._stamps:
            return False
        differing = {path for path in {**found, **self._stamps} if found.get(path) != self._stamps.get(path)}
        for path in sorted(differing & set(found), key=len, reverse=True):
            self._remove(path)
        folders = {os.path.dirname(path) for path in differing}  # their own times changed
        for path in sorted((differing | folders) & set(self._stamps)):
            self._restore(path)
        self._stamps = _stamps(self.data)
        return True

    def state(self) -> str:
        """Digest of how `data` differs from its first state, in content; empty where it does not."""
        found = _stamps(self.data)
        touched = sorted(path for path in {**found, **self._stamps} if found.get(path) != self._stamps.get(path))
        contents = {path: content(self.data / path, self.data) for path in touched}
        changed = {path: now for path, now in contents.items() if now != self._first_content(path)}
        return digest(changed) if changed else ""

    def _first_content(self, path: str) -> str:
        if path not in self._contents:
            self._contents[path] = content(self._pristine / path, self.data)
        return self._contents[path]

    def _remove(self, path: str) -> None:
        """Remove what stands at `path`, but for a folder that the template has too."""
        target = self.data / path
        if target.is_symlink() or not target.is_dir():
            target.unlink(missing_ok=True)
        elif not self._is_folder(path):
            target.chmod(0o700)
            shutil.rmtree(target)

    def _is_folder(self, path: str) -> bool:
        source = self._pristine / path
        return source.is_dir() and not source.is_symlink()

    def _restore(self, path: str) -> None:
        source, target = self._pristine / path, self.data / path
        if self._is_folder(path):
            target.mkdir(exist_ok=True)
            shutil.copystat(source, target)
        elif os.path.lexists(source) and not os.path.lexists(target):
            shutil.copy2(source, target, follow_symlinks=False)


def _home(private: dict[str, Path]) -> dict[str, str]:
    return {"HOME": str(private["home"]), "TMPDIR": str(private["tmp"])}


def _special(folder: str, names: Sequence[str]) -> set[str]:
    """Pipes, sockets and devices: what cannot be copied."""
    modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    return {n for n, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))}


def _entries(folder: str) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """What is in a folder, without what a server removes meanwhile."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                yield entry, entry.stat(follow_symlinks=False)


def _stamps(root: Path) -> dict[str, _Stamp]:
    """What tells whether an entry under `root` has changed, by relative path. Opens folders that a server has locked.

    For files the change time is part of it: no program can set that back. Symbolic links are never followed.
    """
    stamps: dict[str, _Stamp] = {}
    start = len(str(root)) + 1
    pending = [str(root)]
    while pending:
        for entry, status in _entries(pending.pop()):
            stamp: _Stamp = (status.st_mode,)
            if entry.is_dir(follow_symlinks=False):
                if status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                    os.chmod(entry.path, stat.S_IRWXU)
                pending.append(entry.path)
            else:
                stamp += (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            stamps[entry.path[start:]] = stamp
    return stamps
