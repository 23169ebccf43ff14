"""Weighing the tokens in which the two answers of a pair differ, in any of TRL's losses.

The answers of a mutated pair are equal but for a value or two. Their common beginning cancels in the difference of the
log-ratios, since both see the same tokens before it; their common ending does not: after a wrong value the model may
write the rest with more or less confidence, and this noise counts as much as the value itself. `shared_weight` says
what tokens outside the differing range count in the log-ratios: 1 is TRL's loss, 0 leaves the differing tokens alone.

TRL sums a row's log-probabilities, padding included, for its log-ratios, and reads single tokens where it wants their
mean (the `sft` term, WPO's weights). So what shared tokens count less is put into a column of padding: sums see it, and
everything else stays what it was.
"""

from typing import Any

from synthesis.errors import UserError


def refuse_weight(weight: float, why_not_grouped: str, ld_alpha: float | None) -> None:
    """Raise `UserError` for a `shared_weight` that cannot be had: it needs the grouped trainer and no `ld_alpha`."""
    if not 0 <= weight <= 1:
        raise UserError(f"shared_weight: expected a number from 0 to 1, found {weight}")
    if weight != 1 and why_not_grouped:
        raise UserError(f"shared_weight: needs the grouped trainer, which does not run here ({why_not_grouped})")
    if weight != 1 and ld_alpha is not None:
        raise UserError("shared_weight: cannot be combined with ld_alpha; set one of them")


def discounts(batch: dict[str, Any], weight: float) -> Any:
    """How much less each token counts: `weight` - 1 for tokens that a pair's answers share, 0 for all others.

    Args:
        batch: of `grouped_dpo.GroupCollator`; its rows are one longer than the longest answer needs.

    Returns:
        A float tensor of shape (2P, C); the last column is padding in every row.
    """
    shared = batch["completion_mask"][:, 1:].bool() & ~batch["packed_differs"].bool()
    return shared * (weight - 1.0)


def discounted(log_probs: Any, taken_off: Any) -> Any:
    """`log_probs` of shape (2P, C) with each row's discount, a negative share of its sum, in the last column."""
    import torch

    total = (log_probs * taken_off).sum(dim=1, keepdim=True)
    return torch.cat([log_probs[:, :-1], total], dim=1)
