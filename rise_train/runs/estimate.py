"""What a training will take, before it starts: memory of each process and floating-point operations.

Sizes that can be counted are counted (`rise_train.models.skeleton`); the formulas here say how each way of sharing the
work divides them. They leave out the CUDA context, buffers of NCCL and fragmentation: leave a tenth of a GPU free.
"""

from dataclasses import dataclass, replace
from typing import Any

from rise_train.models.skeleton import Shape, kept_bytes
from rise_train.runs.processes import Kind, Launch

KINDS: tuple[Kind, ...] = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
GIB = 2**30
TILE = 4096 * 32768
"""Logits that TRL's fused LM head holds at once (tokens by words, `trl.kernels.chunked_logprob`)."""
LIVE = 1_000_000_000
"""Parameters that ZeRO-3 gathers at most at a time (`stage3_max_live_parameters`)."""
BUCKET = 500_000_000
"""Gradients that ZeRO-1 and ZeRO-2 send at a time (`reduce_bucket_size`)."""


@dataclass(frozen=True)
class Load:
    """What one process computes in a step, before the optimiser."""

    sequences: int
    tokens: int
    """Of the longest sequence; of the longest packed group in grouped DPO."""
    checkpointing: bool
    autocast: bool
    """Whether matrix products are in bfloat16 (`bf16: true`)."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, by what holds them."""

    weights: float
    gradients: float
    optimiser: float
    reference: float
    activations: float
    buffers: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.weights + self.gradients + self.optimiser + self.reference + self.activations + self.buffers


def activations(model_args: Any, shape: Shape, load: Load) -> float:
    """Bytes of activations at the peak: what all layers keep, and one tile of logits in the model's type and float32.

    With gradient checkpointing a layer keeps its input alone, and one layer at a time is computed again (Chen et al.,
    arXiv 1604.06174). A layer's share is what a second layer adds to a model of one. On its way back, half as much
    stands beside it: the gradients of its widest tensors.
    """
    one, two = (kept_bytes(model_args, load.sequences, load.tokens, n, load.autocast) for n in (1, 2))
    layer, rest = two - one, 2 * one - two + (two - one) / 2
    positions = load.sequences * load.tokens
    tile = min(TILE, positions * shape.vocabulary) * (shape.element + 4)
    if not load.checkpointing:
        return rest + shape.layers * layer + tile
    return rest + layer + shape.layers * positions * shape.width * shape.element + tile


def memory(shape: Shape, launch: Launch, held: float, optimiser: str, reference: str, autocast: bool) -> Memory:
    """Memory of one process.

    AdamW keeps two numbers for each trained one, in the type of the weights; DeepSpeed holds the trained weights in
    the computing type and a float32 copy with float32 states beside them (ZeRO, arXiv 1910.02054, section 3.1: 2 + 2 +
    12 bytes), and divides states, gradients and weights in stages 1, 2 and 3; accelerate's FSDP2 holds float32 weights
    under autocast and divides everything. What is offloaded is in the host's memory: states with the gradients they are
    updated by (arXiv 2101.06840, section 4.1), weights with those of a second model.

    Args:
        held: bytes of activations, from `activations`.
        optimiser: TRL's field `optim`; the states of one whose name ends in `8bit` take a byte each.
        reference: `none`, `adapter` (a frozen copy of the adapter) or `model` (a second model).
    """
    n, deepspeed = launch.processes, launch.kind.startswith("zero")
    number = shape.trainable_bytes / max(1, shape.trainable)
    if deepspeed:
        number = min(number, shape.element)
    elif launch.kind == "fsdp2" and autocast:
        number = 4.0
    trained, small = shape.trainable * number, optimiser.endswith("8bit")
    states = shape.trainable * (2 if small else 12 if deepspeed else 2 * number)
    weights, gradients = shape.frozen_bytes + trained, trained
    second = {"none": 0.0, "adapter": trained, "model": float(shape.parameters * shape.element)}[reference]
    buffers = 0.0
    if launch.kind == "ddp":
        buffers = trained  # DDP's buckets
    elif launch.kind in ("zero1", "zero2"):
        buffers = min(shape.trainable, BUCKET) * number
    elif launch.kind == "zero3":
        buffers = min(shape.parameters, LIVE) * shape.element
    elif launch.kind == "fsdp2":  # two layers and the embeddings; TRL shards a second model as one unit
        gathered = min(shape.parameters, 2 * shape.largest + shape.embeddings)
        buffers = (shape.parameters if reference == "model" else gathered) * shape.element
    whole = launch.kind in ("zero3", "fsdp2")
    result = Memory(
        weights=weights / n if whole else weights,
        gradients=gradients / n if whole or launch.kind == "zero2" else gradients,
        optimiser=states / n if whole or launch.kind in ("zero1", "zero2") else states,
        reference=second / n if whole else second,
        activations=held,
        buffers=buffers,
    )
    result = replace(result, optimiser=0.0, gradients=0.0) if launch.offload_optimiser else result
    return replace(result, weights=0.0, reference=0.0) if launch.offload_weights else result


def operations(shape: Shape, tokens: float, length: float, *, reference: float, checkpointing: bool) -> float:
    """Floating-point operations of training on `tokens` tokens.

    A forward pass costs 2 a token and parameter, the backward pass as much again for the activations and, where the
    weights train, for the weights (Kaplan et al., arXiv 2001.08361, section 2.1: 6 in all); checkpointing repeats the
    forward pass. Attention adds 2 x layers x width x length a forward pass, half of the full square as it is causal,
    and twice that backward (Chowdhery et al., arXiv 2204.02311, appendix B).

    Args:
        tokens: trained on, all epochs.
        length: tokens that attention spans, on average over rows.
        reference: tokens that a reference model sees, forward only.
    """
    full = shape.trainable == shape.parameters
    again = 1 if checkpointing else 0
    attention = 2.0 * shape.layers * shape.attention * length
    forward = 2.0 * shape.matmul + attention
    backward = (4.0 if full else 2.0) * shape.matmul + 2 * attention
    return tokens * (forward * (1 + again) + backward) + reference * forward
