"""What both stages do around their training: refuse what cannot work, claim the folder, end in one sentence."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.policies.allocator import keep_freed_memory
from rise_train.models.fingerprint import MANIFEST
from rise_train.runs.manifest import Run, claimed
from rise_train.runs.processes import read_environment, refuse_lost_steps
from rise_train.runs.recipe import Stage, parse
from rise_train.runs.training_log import quiet_libraries
from synthesis.errors import UserError


def run_stage(
    stage: Stage, train: Callable[[Run, Any, Any, Any], Path], data_args: Any, training_args: Any, model_args: Any
) -> Path:
    """`train` in its output folder, unless that is finished; returns the manifest's path. Raises `UserError`."""
    quiet_libraries()
    keep_freed_memory()
    refuse_lost_steps(read_environment(os.environ), training_args, model_args)
    with claimed(stage, data_args, model_args, training_args) as run:
        if run.finished:
            print(f"{stage}: {run.folder} is finished already; nothing to do")
            return run.folder / MANIFEST
        return train(run, data_args, training_args, model_args)


def run_command(stage: Stage, main: Callable[[Any, Any, Any], Path], argv: list[str]) -> int:
    """Parse and run; a mistake of the user's gives one sentence and status 2."""
    try:
        main(*parse(stage, argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
