"""Looking at a model before the Trainer has placed it, where launchers leave it scattered or on the host."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def placed(trainer: Any) -> Iterator[None]:
    """Within it, the trainer's policy is whole and on its device, so that a plain forward pass works before training.

    ZeRO-3 divides the weights as they load, and only its engine, made when training starts, puts them together; with
    the other launchers but plain ones the model waits on the host until then, and under FSDP it is on every device
    whole for this moment. A reference model of its own has been placed by TRL already.
    """
    from transformers.integrations import is_deepspeed_zero3_enabled

    model, device = trainer.accelerator.unwrap_model(trainer.model), trainer.accelerator.device
    if is_deepspeed_zero3_enabled():
        with _gathered(model):
            yield
        return
    home = model.device
    if home == device:
        yield
        return
    model.to(device)
    yield
    model.to(home)


@contextmanager
def _gathered(model: Any) -> Iterator[None]:
    """ZeRO-3's parts of a module's weights together while the module computes, so that the whole never stands at once.

    The head's, which TRL's fused head reads without calling it, stay together throughout.
    """
    import deepspeed

    gathered = deepspeed.zero.GatheredParameters
    held = list(model.get_output_embeddings().parameters())
    stay = {id(weight) for weight in held}
    computing: list[ExitStack] = []  # calls nest

    def gather(module: Any, _: Any) -> None:
        weights = [weight for weight in module.parameters(recurse=False) if id(weight) not in stay]
        computing.append(ExitStack())
        computing[-1].enter_context(gathered(weights))

    def divide(*_: Any) -> None:
        computing.pop().close()

    with ExitStack() as hooks, gathered(held):
        for module in model.modules():
            if any(id(weight) not in stay for weight in module.parameters(recurse=False)):
                hooks.callback(module.register_forward_pre_hook(gather).remove)
                hooks.callback(module.register_forward_hook(divide).remove)
        yield
