"""The proof, before the first step, that a model computes packed rows as it computes the rows one by one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from rise_train.models.precision import COARSE, EXACT, in_float32, is_scattered, weights_dtype
from synthesis.errors import UserError

Scorer = Callable[[], Sequence[torch.Tensor]]
"""Computes log-probabilities of the same tokens in the same order, one 1-D tensor a row."""
NOISIER = 3.0
"""How much further from float32 the packed way may round than the plain way does, root mean square."""


def prove_packing(trainer: Any, packed: Scorer, plain: Scorer, remedy: str) -> float:
    """Compare both ways of computing; returns the largest difference of a token's log-probability, in nats.

    In float32, where a mask or a position that is wrong cannot hide in rounding, they must agree within `EXACT`. In the
    precision that training has, each is then compared with float32: the packed way may round no worse than the plain
    one. Weights that are divided among processes cannot be widened, and are compared as they are.

    Args:
        packed, plain: score the same tokens both ways with the trainer's model.
        remedy: what to set in the recipe where they differ.

    Raises:
        UserError: they differ by more than rounding.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if is_scattered(model):
        apart = _run(trainer, packed) - _run(trainer, plain)
        exact = weights_dtype(model) == "float32" and trainer.accelerator.mixed_precision == "no"
        _refuse(_root_mean_square(apart), EXACT if exact else COARSE, remedy)
        return float(apart.abs().max())
    with in_float32(model):
        ours, theirs = torch.cat(list(packed())), torch.cat(list(plain()))
    gap = float((ours - theirs).abs().max())
    _refuse(gap, EXACT, remedy)
    error = _root_mean_square(_run(trainer, packed) - theirs)
    _refuse(error, EXACT + NOISIER * _root_mean_square(_run(trainer, plain) - theirs), remedy)
    return gap


def score(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:
    """The trainer's model's log-probabilities of a prepared batch's labels, by TRL's fused head, in float32 numbers."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    training = model.training
    model.eval()
    with torch.no_grad():
        scores: torch.Tensor = model(**batch, fused_lm_head=True, use_cache=False).log_probs.float()
    model.train(training)
    return scores


def _run(trainer: Any, scorer: Scorer) -> torch.Tensor:
    """In the precision that training has."""
    with trainer.accelerator.autocast():
        return torch.cat(list(scorer()))


def _root_mean_square(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def _refuse(gap: float, limit: float, remedy: str) -> None:
    if not gap <= limit:  # not a number is refused too
        raise UserError(
            f"this model computes packed rows differently from single ones (log-probability of a token off by "
            f"{gap:.2g}, rounding {limit:.2g}); set {remedy}"
        )
