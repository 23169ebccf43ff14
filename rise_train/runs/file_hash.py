"""One identity for what several files hold: data, weights."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def hash_files(folder: Path, files: Iterable[Path]) -> str:
    """Hash of the contents of `files` and of their names below `folder`; where that folder lies plays no part."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]
