"""A fault of this program costs the candidate that meets it, never the run; and the run says so where it is done."""

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from synthesis.errors import UserError

Surprised = Callable[[str], object]
"""Is told of a surprise that no journal holds."""
warn: Surprised = warnings.warn
NAME = "surprise"
_NOT_OF_A_CANDIDATE = (UserError, OSError, MemoryError)
"""Mistakes that the user can mend, and trouble of the machine: these end the run, and it goes on later."""


def is_surprise(reason: str) -> bool:
    """Whether a rejection's reason is one."""
    return reason.startswith(f"{NAME}: ")


def surprise(error: Exception) -> str:
    """What happened, and where: the reason of a rejection. What is no candidate's fault is raised again."""
    if isinstance(error, _NOT_OF_A_CANDIDATE):
        raise error
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())[:200]
    return f"{NAME}: {type(error).__name__}: {said} ({Path(place.filename).name}:{place.lineno})"
