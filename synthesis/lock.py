"""One process at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synthesis.errors import UserError


@contextmanager
def locked(folder: Path, who: str) -> Iterator[None]:
    """Hold the folder, which is made if need be; the lock goes with the process, however that ends.

    Raises `UserError` where another process holds it, which `who` names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another {who} is at work there") from None
        yield
