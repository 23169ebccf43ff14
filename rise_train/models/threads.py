"""A training's number of threads follows the load of its machine."""

from typing import Any

from transformers import TrainerCallback

from eval.policies.threads import Threads


class ThreadsCallback(TrainerCallback):  # type: ignore[misc]  # transformers carries no types
    """Leaves other processes their cores, and takes them back: see `eval.policies.threads`."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to look."""
        self.threads = Threads()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Fit the number to what was seen."""
        self.threads.fit()
