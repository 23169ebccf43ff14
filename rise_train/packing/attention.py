"""Attention over packed rows (`packing.trie`): the tree mask, and SDPA that spares what a stem does not need.

A packed row begins with a *stem*, positions that form one straight path: the prompt, and what all answers begin with.
Among themselves they are plainly causal, which SDPA computes without a mask and without the cells above the diagonal.
Only the positions after the stem need mask rows, so the mask is (N - stem) x N instead of N x N; and on a CPU each of
the branches that grow from the stem is computed with the keys of the stem and its own.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

STEMMED = "sdpa_stemmed"
"""The name under which transformers knows `stemmed_sdpa`."""
SERVED = {"full_attention", "sliding_attention"}
"""Kinds of layers that a tree mask can serve."""
BLOCK = 128
"""Queries and keys of a block of FlexAttention's mask."""
CELLS = 1 << 22
"""How many cells of a mask are looked at together while its blocks are sorted out."""


def unserved(config: Any, attention: str) -> str:
    """Why a model cannot train on packed rows; an empty string where it can.

    Args:
        config: the model's configuration.
        attention: its attention implementation, e.g. "sdpa".
    """
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ()) - SERVED
    if kinds:
        return f"it has {', '.join(sorted(kinds))} layers, which carry state from one answer into the next"
    if attention not in ("sdpa", STEMMED, "eager", "flex_attention"):
        return f"its attention implementation {attention} takes no mask of our own; sdpa and flex_attention do"
    return ""


def stem_length(tree_end: torch.Tensor) -> int:
    """How many leading positions of every row, shape (rows, N), form one straight path; less than N."""
    straight = (tree_end[:, :-1] == tree_end[:, :1]).int().cumprod(dim=1)
    return int(straight.sum(dim=1).min())


def tree_mask(
    tree_end: torch.Tensor,
    attention: str,
    dtype: torch.dtype,
    window: int | None = None,
    positions: torch.Tensor | None = None,
) -> Any:
    """The attention mask of packed rows, in the form that an attention implementation takes.

    Args:
        tree_end: integer tensor of shape (rows, N); padding holds its own index.
        attention: "sdpa" (bool, True = sees), `STEMMED` (the same without the stem's rows), "eager" (0 or the smallest
            number, in `dtype`) or "flex_attention" (a block mask: nothing quadratic in memory).
        window: of a sliding-window layer: a position also sees only those less than `window` before it on its path.
        positions: the depths, shape (rows, N); needed with `window`.

    Returns:
        A tensor of shape (rows, 1, N or N - stem, N), indexed [row, head, query, key], or a `BlockMask`.
    """
    rows, length = tree_end.shape
    device = tree_end.device

    def sees(row: Any, query: Any, key: Any) -> Any:
        inside = (key <= query) & (query <= tree_end[row, key])
        if window is None or positions is None:
            return inside
        return inside & (positions[row, query] - positions[row, key] < window)

    if attention == "flex_attention":
        return _block_mask(sees, tree_end)
    first = stem_length(tree_end) if attention == STEMMED and window is None else 0
    index = torch.arange(length, device=device)
    row = torch.arange(rows, device=device)[:, None, None]
    mask = sees(row, index[None, first:, None], index[None, None, :])[:, None]
    if attention == "eager":
        return torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, torch.finfo(dtype).min)
    return mask


def _block_mask(sees: Callable[[Any, Any, Any], Any], tree_end: torch.Tensor) -> Any:
    """The `BlockMask` of `sees` (row, query, key), of N / BLOCK squared blocks; never are there N x N cells.

    PyTorch 2.13's own `create_block_mask` makes them all, at 10 bytes a cell, unless it is compiled for each length.
    """
    from torch.nn.attention.flex_attention import BlockMask

    rows, length = tree_end.shape
    device = tree_end.device
    row, key = (torch.arange(n, device=device) for n in (rows, length))
    strip = max(1, CELLS // (rows * length * BLOCK)) * BLOCK
    counts = []
    for first in range(0, length, strip):
        query = torch.arange(first, min(first + strip, length), device=device)
        cells = sees(row[:, None, None], query[None, :, None], key[None, None, :])
        cells = torch.nn.functional.pad(cells, (0, -length % BLOCK, 0, -len(query) % BLOCK))
        columns = cells.view(rows, -1, BLOCK, cells.shape[2]).sum(dim=2, dtype=torch.int32)
        counts.append(columns.view(rows, columns.shape[1], -1, BLOCK).sum(dim=3))
    seen = torch.cat(counts, dim=1)[:, None]  # shape (rows, 1, blocks of queries, blocks of keys)
    whole = seen == BLOCK * BLOCK
    return BlockMask.from_kv_blocks(
        *_ordered((seen > 0) & ~whole),
        *_ordered(whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=lambda row, head, query, key: sees(row, query, key),
        seq_lengths=(length, length),
    )


def _ordered(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many blocks of each row of blocks are marked, and the indices of all, the marked ones first."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32), order.int()


def masks(config: Any, dtype: torch.dtype, tree_end: torch.Tensor, positions: torch.Tensor) -> Any:
    """The tree mask, or one for each kind of layer where the model slides a window over some of them."""
    text, attention = config.get_text_config(), config._attn_implementation
    kinds = set(getattr(text, "layer_types", None) or ())
    window = getattr(text, "sliding_window", None)
    if window is None or (kinds and "sliding_attention" not in kinds):
        return tree_mask(tree_end, attention, dtype)
    narrow = tree_mask(tree_end, attention, dtype, window if int(positions.max()) >= window else None, positions)
    if not kinds or text.model_type == "mistral":  # one kind of layer, one mask
        return narrow
    return {"full_attention": tree_mask(tree_end, attention, dtype), "sliding_attention": narrow}


def spare_the_stem(model: Any) -> None:
    """Let a model that attends by SDPA use `stemmed_sdpa` from now on; its saved configuration stays as it was."""
    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(STEMMED, stemmed_sdpa)
    AttentionMaskInterface.register(STEMMED, sdpa_mask)
    model.set_attn_implementation(STEMMED)


def stemmed_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA for a mask without its first rows: those queries are a stem, and attend causally to it alone.

    With a mask that has a row for every query, or none at all, it is transformers' own SDPA.

    Args:
        query: shape (rows, heads, N, head size); `key` and `value` likewise, with the heads for keys and values.
        attention_mask: shape (rows, 1, N - stem, N), True = sees.

    Returns:
        The heads' outputs, shape (rows, N, heads, head size), and None, as the interface wants it.
    """
    stem = 0 if attention_mask is None else query.shape[2] - attention_mask.shape[2]
    if attention_mask is None or stem == 0:
        whole: torch.Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return whole, None
    trunk, crown = torch.split(query, [stem, query.shape[2] - stem], dim=2)
    below = sdpa_attention_forward(module, trunk, key[:, :, :stem], value[:, :, :stem], None, **options)[0]
    if query.device.type != "cpu":
        above = sdpa_attention_forward(module, crown, key, value, attention_mask, **options)[0]
        return torch.cat([below, above], dim=1), None
    found = [below]
    for start, end in branches(attention_mask):
        seen = [slice(0, stem), slice(stem + start, stem + end)]
        keys, values = (torch.cat([held[:, :, part] for part in seen], dim=2) for held in (key, value))
        cells = torch.cat([attention_mask[:, :, start:end, part] for part in seen], dim=3)
        found.append(sdpa_attention_forward(module, crown[:, :, start:end], keys, values, cells, **options)[0])
    return torch.cat(found, dim=1), None


def branches(mask: torch.Tensor) -> list[tuple[int, int]]:
    """The runs of positions after the stem, counted from there, that see nothing of each other in any row.

    A CPU computes the cells of a mask that are False too: by branches it is spared most of them.

    Args:
        mask: shape (rows, 1, N - stem, N), True = sees.
    """
    length = mask.shape[2]
    earlier = mask[..., mask.shape[3] - length :].tril(-1)
    starts = [*(~earlier.any(dim=3).any(dim=1).any(dim=0)).nonzero()[:, 0].tolist(), length]
    return list(pairwise(starts))
