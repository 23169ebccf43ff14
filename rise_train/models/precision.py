"""Computing in float32 whatever a training computes in, to tell rounding from another model.

In bfloat16 two right ways to compute one log-probability may differ by tenths, and so may two models that are not the
same. In float32 they are told apart to the third digit, so the guards of training compare there.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

EXACT = 1e-3
"""Nats: the most by which the log-probability of a token differs between two float32 runs of one model."""
COARSE = 0.1
"""Nats: the same for 16-bit runs, root mean square over the tokens, where weights are scattered over processes."""


def is_scattered(model: Any) -> bool:
    """Whether weights are divided among processes (ZeRO-3, FSDP2), so that none can be widened here."""
    return any(hasattr(weight, "ds_id") or hasattr(weight, "device_mesh") for weight in model.parameters())


def weights_dtype(model: Any) -> str:
    """In which dtype the weights of a model, adapters apart, are stored, e.g. "bfloat16"."""
    named = model.named_parameters()
    return str(next(weight.dtype for name, weight in named if "lora_" not in name)).removeprefix("torch.")


@contextmanager
def in_float32(model: Any, jitter: float = 0.0) -> Iterator[None]:
    """Within it `model` computes in float32: no autocast, no TF32, and each layer's weights widened while it computes.

    No more than one layer and the head stand in float32 at a time. Widening loses nothing, and afterwards the very
    same weights are back. Weights of 4 bits stay, and are computed with in float32; in 8 bits bitsandbytes
    multiplies in float16 whatever it is asked. Not for a model that `is_scattered`.

    With `jitter` each weight is off by a random share of itself, at most so large: what rounding the weights changes.
    """
    import torch

    with ExitStack() as undo:
        undo.enter_context(_without_wrapper(model))
        undo.enter_context(torch.autocast(model.device.type, enabled=False))
        undo.enter_context(_without_tf32())
        # TRL's fused head reads it without a call.
        undo.enter_context(_widened(model.get_output_embeddings(), jitter))
        for unit in _units(model):
            undo.enter_context(_widened_while_computing(unit, jitter))
        yield


def _units(model: Any) -> list[Any]:
    """Modules that hold all weights of a model between them: its layers, and what has weights of its own elsewhere."""
    import torch

    layers = [layer for part in model.modules() if isinstance(part, torch.nn.ModuleList) for layer in part]
    inside = {id(module) for layer in layers for module in layer.modules()}
    nested = {id(m) for layer in layers for m in layer.modules() if m is not layer}
    others = [m for m in model.modules() if id(m) not in inside and any(True for _ in m.parameters(recurse=False))]
    return [layer for layer in layers if id(layer) not in nested] + others


@contextmanager
def _widened(module: Any, jitter: float = 0.0) -> Iterator[None]:
    """The floating weights of a module in float32, and its 4-bit layers computing so."""
    import torch

    floating = [weight for weight in module.parameters() if weight.is_floating_point()]
    stored = [(w, w.data) for w in floating if w.dtype != torch.float32 or jitter]
    quantised = [(m, m.compute_dtype) for m in module.modules() if hasattr(m, "compute_dtype")]
    noise = torch.Generator(floating[0].device).manual_seed(0) if jitter and floating else None
    for weight, data in stored:
        weight.data = data.float()
        if noise is not None:
            off = torch.rand(data.shape, generator=noise, device=data.device).mul_(2 * jitter).sub_(jitter)
            weight.data = weight.data * (1 + off)
    for layer, _ in quantised:
        layer.compute_dtype = torch.float32
    try:
        yield
    finally:
        for weight, data in stored:
            weight.data = data
        for layer, dtype in quantised:
            layer.compute_dtype = dtype


@contextmanager
def _widened_while_computing(module: Any, jitter: float) -> Iterator[None]:
    computing: list[ExitStack] = []  # calls nest where a module calls itself

    def widen(*_: Any) -> None:
        computing.append(ExitStack())
        computing[-1].enter_context(_widened(module, jitter))

    def restore(*_: Any) -> None:
        computing.pop().close()

    hooks = [module.register_forward_pre_hook(widen), module.register_forward_hook(restore, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _without_wrapper(model: Any) -> Iterator[None]:
    """A prepared model's own forward, without the autocast that accelerate (1.15) wraps around it."""
    if not hasattr(model, "_original_forward"):
        yield
        return
    wrapped, model.forward = model.forward, model._original_forward
    try:
        yield
    finally:
        model.forward = wrapped


@contextmanager
def _without_tf32() -> Iterator[None]:
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
