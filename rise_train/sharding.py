"""Looking at a model before the Trainer has placed it, where launchers leave it scattered or on the host."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def placed(trainer: Any) -> Iterator[None]:
    """Within it, the trainer's policy is whole and on its device, so that a plain forward pass works before training.

    ZeRO-3 divides the weights as they load, and only its engine, made when training starts, puts them together; with
    the other launchers but plain ones the model waits on the host until then. A reference model of its own has been
    placed by TRL already.
    """
    from transformers.integrations import is_deepspeed_zero3_enabled

    model, device = trainer.accelerator.unwrap_model(trainer.model), trainer.accelerator.device
    if is_deepspeed_zero3_enabled():
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(model.parameters())):
            yield
        return
    home = model.device
    if home == device:
        yield
        return
    model.to(device)
    yield
    model.to(home)
