"""Progress of a training: a bar on a terminal, plain lines elsewhere, and the losses on disk as they come."""

import os
import time
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import EarlyStoppingCallback, TrainerCallback

from eval.policies.allocator import hand_back
from eval.policies.threads import Threads
from rise_train.runs.manifest import HISTORY
from synthesis.errors import UserError
from synthesis.json_file import write_json

UNLIKELIER = -1.0
"""Nats by which the right answers may become less likely than under the reference before the run says so."""


class ProgressCallback(TrainerCallback):  # type: ignore[misc]  # transformers carries no types
    """Shows step, loss and (in DPO) reward margin; writes `log_history.json` at every logging step."""

    def __init__(self, stage: str, folder: Path, tokens: int = 0) -> None:
        self.stage = stage
        self.folder = folder
        self.tokens = tokens
        """Tokens of one epoch over all processes, for the rate; may be set until training starts."""
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.started = 0.0
        self.warned = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar, or say in a line what begins."""
        self.started, self.first, self.first_epoch = time.monotonic(), state.global_step, state.epoch or 0.0
        if not state.is_world_process_zero:
            return
        if not self.console.is_terminal:
            again = f", going on from step {state.global_step}" if state.global_step else ""
            print(f"{self.stage}: {state.max_steps} steps{again}", flush=True)
            return
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
        ]
        self.bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
        self.bar.start()
        self.task = self.bar.add_task(self.stage, total=state.max_steps, completed=state.global_step, loss="", rate="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar; the last step is always logged, so that every training has a final loss."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        if self.bar:
            self.bar.update(self.task, completed=state.global_step, rate=self._rate(state))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the newest loss and keep the history on disk."""
        if not state.is_world_process_zero or not logs:
            return
        if "eval_loss" in logs:
            self._tell_validation(logs, state)
        if "loss" not in logs:
            return
        write_json(self.folder / HISTORY, state.log_history, allow_nan=True)
        self._watch_chosen(logs, state, getattr(args, "beta", 1.0))
        margin = f"  margin {logs['rewards/margins']:.3f}" if "rewards/margins" in logs else ""
        text = f"loss {logs['loss']:.4f}{margin}"
        if self.bar:
            self.bar.update(self.task, loss=text)
            return
        spent = time.monotonic() - self.started
        left = spent / max(1, state.global_step - self.first) * (state.max_steps - state.global_step)
        rate = self._rate(state)
        print(
            f"{self.stage}: step {state.global_step}/{state.max_steps}  {text}  {rate}{', ' if rate else ''}"
            f"{spent:.0f} s, {left:.0f} s left",
            flush=True,
        )

    def _tell_validation(self, logs: dict[str, Any], state: Any) -> None:
        margin = f"  margin {logs['eval_rewards/margins']:.3f}" if "eval_rewards/margins" in logs else ""
        text = (
            f"{self.stage}: step {state.global_step}/{state.max_steps}  validation loss {logs['eval_loss']:.4f}{margin}"
        )
        write_json(self.folder / HISTORY, state.log_history, allow_nan=True)
        if self.bar:
            self.bar.console.print(text, highlight=False)
        else:
            print(text, flush=True)

    def _rate(self, state: Any) -> str:
        """Tokens a second since training started here, over all processes; empty where they were not counted."""
        seen = self.tokens * ((state.epoch or 0.0) - self.first_epoch)
        return f"{seen / max(1e-9, time.monotonic() - self.started):,.0f} tokens/s" if seen else ""

    def _watch_chosen(self, logs: dict[str, Any], state: Any, beta: float) -> None:
        """Say once when DPO lowers the right answers too: pairs that differ in little push both sides down."""
        change = logs.get("rewards/chosen", 0.0) / beta
        if change < UNLIKELIER and not self.warned:
            self.warned = True
            self.console.print(
                f"{self.stage}: step {state.global_step}: the right answers have become less likely than under the "
                f"reference (log-probability {change:+.1f}); add `sft` to loss_type, or lower learning_rate",
                highlight=False,
                soft_wrap=True,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar down."""
        if self.bar:
            self.bar.stop()


class ThreadsCallback(TrainerCallback):  # type: ignore[misc]  # transformers carries no types
    """Leaves other processes their cores and memory, and takes them back: `eval.policies.threads`, `.allocator`."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to look."""
        self.threads = Threads()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Fit the number to what was seen."""
        self.threads.fit()
        hand_back()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The next batch may be of another length."""
        hand_back()


def callbacks(stage: str, folder: Path, data_args: Any, tokens: int = 0) -> list[Any]:
    """The callbacks of a training: its progress first, its threads, and stopping early where the recipe asks for it."""
    found: list[Any] = [ProgressCallback(stage, folder, tokens), ThreadsCallback()]
    if data_args.early_stopping_patience is not None:
        found.append(EarlyStoppingCallback(data_args.early_stopping_patience))
    return found


def settle_wandb(training_args: Any) -> None:
    """Where the recipe reports to wandb and nobody is logged in, record offline, and say so: never a prompt.

    Raises `UserError` where wandb is not installed. What was set in `WANDB_MODE` stays.
    """
    if "wandb" not in training_args.report_to:
        return
    if find_spec("wandb") is None:
        raise UserError("report_to: wandb is not installed; pip install 'rise-train[wandb]', or report_to: none")
    os.environ.setdefault("WANDB_DIR", training_args.output_dir)
    Path(os.environ["WANDB_DIR"]).mkdir(parents=True, exist_ok=True)
    if "WANDB_MODE" in os.environ or _logged_in():
        return
    os.environ["WANDB_MODE"] = "offline"
    if training_args.process_index == 0:
        print(
            f"wandb: no login, so it records offline; later: wandb sync {os.environ['WANDB_DIR']}/wandb/offline-run-*"
        )


def _logged_in() -> bool:
    """Whether a key for wandb's host stands in the environment or in the user's netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return path.is_file() and netrc(path).authenticators(host) is not None
    except NetrcParseError:
        return False


def quiet_libraries() -> None:
    """Keep the libraries' own bars from breaking ours; warnings stay."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
