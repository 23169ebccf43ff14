"""Attention over packed rows: masks of all kinds say the same, and a stem without mask rows changes no result."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import VOCABULARY, small

from rise_train.packing import attention as module
from rise_train.packing.attention import STEMMED, branches, masks, spare_the_stem, stem_length, tree_mask, unserved
from rise_train.packing.trie import Trie, pack


def example() -> tuple[Trie, Any, Any]:
    trie = pack([5, 6, 7, 8], [[1, 2, 3], [1, 2, 4], [1, 9]])
    return trie, torch.tensor([trie.tree_end]), torch.tensor([trie.positions])


@pytest.mark.parametrize("window", [None, 3])
def test_masks_of_all_kinds_say_the_same(window: int | None) -> None:
    trie, end, positions = example()
    allowed = tree_mask(end, "sdpa", torch.float32, window, positions)[0, 0]
    expected = [
        [
            key <= query <= trie.tree_end[key]
            and (window is None or trie.positions[query] - trie.positions[key] < window)
            for key in range(len(trie))
        ]
        for query in range(len(trie))
    ]
    assert allowed.tolist() == expected
    eager = tree_mask(end, "eager", torch.float32, window, positions)[0, 0]
    assert torch.equal(eager == 0, allowed)
    assert (eager[~allowed] < -1e38).all()
    flex = tree_mask(end, "flex_attention", torch.float32, window, positions)
    index = torch.arange(len(trie))
    assert torch.equal(flex.mask_mod(torch.tensor(0), 0, index[:, None], index[None, :]), allowed)


answers = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=20), min_size=1, max_size=5)


@given(
    groups=st.lists(st.tuples(st.integers(1, 60), answers), min_size=1, max_size=3),
    window=st.sampled_from([None, 4, 25]),
    block=st.sampled_from([1, 4, 16, 128]),
    cells=st.sampled_from([1, 1000, 1 << 22]),
)
def test_the_blocks_are_those_of_the_whole_mask(
    groups: list[tuple[int, list[list[int]]]], window: int | None, block: int, cells: int
) -> None:
    """Rows of a batch are padded as the collators do, and PyTorch looks at all cells."""
    from torch.nn.attention.flex_attention import create_block_mask

    tries = [pack([9] * prompt, completions) for prompt, completions in groups]
    longest = max(map(len, tries))
    end = torch.tensor([t.tree_end + list(range(len(t), longest)) for t in tries])
    positions = torch.tensor([t.positions + [0] * (longest - len(t)) for t in tries])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(module, "CELLS", cells)
        ours = tree_mask(end, "flex_attention", torch.float32, window, positions)
    theirs = create_block_mask(ours.mask_mod, len(tries), None, longest, longest, device="cpu", BLOCK_SIZE=block)
    assert (ours.shape, ours.seq_lengths, ours.BLOCK_SIZE) == (theirs.shape, theirs.seq_lengths, theirs.BLOCK_SIZE)
    for name in ("kv", "full_kv", "q", "full_q"):
        for part in ("num_blocks", "indices"):
            left, right = (getattr(mask, f"{name}_{part}") for mask in (ours, theirs))
            assert left.dtype == right.dtype
            assert torch.equal(left, right), (name, part)


def test_a_long_mask_never_has_all_its_cells() -> None:
    """At 32,767 positions the largest tensor on the way has 32 MiB; it had 8 GiB."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            for tensor in made if isinstance(made, (list, tuple)) else [made]:
                if isinstance(tensor, torch.Tensor):
                    self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
            return made

    trie = pack([9] * 30_000, [[answer + 3] * 692 for answer in range(4)])
    end = torch.tensor([trie.tree_end])
    assert len(trie) == 32_768 - 1
    with Largest() as largest:
        mask = tree_mask(end, "flex_attention", torch.float32)
    assert largest.bytes <= 8 * module.CELLS
    assert mask.kv_num_blocks.shape == (1, 1, 256)


def test_the_stem_is_what_all_answers_stand_on() -> None:
    trie, end, _ = example()
    assert stem_length(end) == 4  # three prompt positions, and the one that predicts the first token they share
    whole, crown = (tree_mask(end, attention, torch.float32) for attention in ("sdpa", STEMMED))
    assert torch.equal(crown, whole[:, :, 4:])
    assert torch.equal(whole[0, 0, :4, :4], torch.ones(4, 4).tril().bool())
    assert not whole[0, 0, :4, 4:].any()
    two = torch.tensor([trie.tree_end, [1, 1, 2, 3, 4, 5, 6, 7][: len(trie)]])
    assert stem_length(two) == 2  # the shorter stem of the batch
    assert stem_length(torch.tensor([[2, 2, 2]])) == 2  # one row of the mask always remains


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma2"])
def test_every_implementation_computes_the_same(kind: str) -> None:
    """Hidden states of the packed row by SDPA with the whole mask, without the stem's rows, eagerly and by flex."""
    trie, end, positions = example()
    options = {"sliding_window": 5} if kind in ("mistral", "gemma2") else {}
    found = {}
    for attention in ("sdpa", STEMMED, "eager", "flex_attention"):
        if kind == "gemma2" and attention in ("sdpa", STEMMED):  # its soft cap on the scores is not for SDPA
            continue
        model = small(kind, **options)
        model.set_attn_implementation("sdpa" if attention == STEMMED else attention)
        if attention == STEMMED:
            spare_the_stem(model)
        assert model.config._attn_implementation == attention
        mask = masks(model.config, torch.float32, end, positions)
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # compiled, flex would take half a minute here
            found[attention] = model(
                input_ids=torch.tensor([trie.input_ids]), attention_mask=mask, position_ids=positions, use_cache=False
            ).logits
    for attention, logits in found.items():
        torch.testing.assert_close(logits, found["eager"], rtol=1e-5, atol=1e-5, msg=attention)


def test_branches_of_the_stem_see_nothing_of_each_other() -> None:
    _, end, _ = example()
    mask = tree_mask(end, STEMMED, torch.float32)
    found = branches(mask)
    assert len(found) > 1
    stem = mask.shape[3] - mask.shape[2]
    assert found == [(0, found[0][1]), *((a[1], b[1]) for a, b in pairwise(found))]
    assert found[-1][1] == mask.shape[2]
    kept = torch.zeros_like(mask)
    kept[..., :stem] = True
    for start, stop in found:
        kept[:, :, start:stop, stem + start : stem + stop] = True
    assert not (mask & ~kept).any()
    straight = tree_mask(torch.tensor([[3, 3, 3, 3]]), STEMMED, torch.float32)
    assert branches(straight) == [(0, straight.shape[2])]


def test_sparing_the_stem_changes_nothing_else() -> None:
    """A padded batch, greedy generation with a cache, and the saved configuration are those of plain SDPA."""
    model = small("llama")
    ids = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    kept = torch.ones_like(ids)
    kept[1, :4] = 0

    def behaviour() -> tuple[Any, Any, str]:
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=kept).logits
            replies = model.generate(input_ids=ids, attention_mask=kept, max_new_tokens=6, do_sample=False)
        return logits, replies, model.config.to_json_string()

    before = behaviour()
    spare_the_stem(model)
    after = behaviour()
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]


def test_models_with_state_between_tokens_are_not_served() -> None:
    from transformers import AutoConfig

    for kind in ("qwen3_next", "qwen3_5_text"):
        assert "linear_attention" in unserved(AutoConfig.for_model(kind), "sdpa")
    assert "flash_attention_2" in unserved(AutoConfig.for_model("llama"), "flash_attention_2")
    for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"):
        assert unserved(AutoConfig.for_model(kind), "sdpa") == ""


def test_windows_get_a_mask_of_their_own() -> None:
    end, positions = torch.arange(6)[None].fill_(5), torch.arange(6)[None]
    mixed = masks(small("gemma2", sliding_window=2).config, torch.float32, end, positions)
    assert set(mixed) == {"full_attention", "sliding_attention"}
    assert (mixed["full_attention"] == 0).sum() == 21
    assert (mixed["sliding_attention"] == 0).sum() == 11
    wide = masks(small("mistral", sliding_window=6).config, torch.float32, end, positions)
    assert wide.sum() == 21  # nothing lies as far back as the window
