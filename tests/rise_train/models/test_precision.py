"""Computing in float32 for a moment: exact, and nothing is changed by it; and probes that make no whole logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from models import VOCABULARY, lively, small

from rise_train.models.fingerprint import (
    COARSE,
    ProbeRow,
    is_model_of,
    is_same,
    log_probs,
    mean_gap,
    scores_as_stored,
    take_probe,
)
from rise_train.models.precision import in_float32
from synthesis.errors import UserError

ROWS = [ProbeRow(str(i), list(range(3 + i, 43 + i)), [-100] * 20 + list(range(23 + i, 43 + i))) for i in range(3)]


def adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(model, config, autocast_adapter_dtype=False).eval()


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_bfloat16_model_computes_as_its_float32_copy_and_is_left_as_it_was(kind: str, adapter: bool) -> None:
    model = lively(torch.bfloat16, kind)
    model = adapted(model) if adapter else model
    before = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    coarse, exact = scores_as_stored(model, ROWS), log_probs(model, ROWS)
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == before
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert scores_as_stored(model, ROWS) == coarse, "no hook is left"
    assert mean_gap(exact, scores_as_stored(model.float(), ROWS)) < 1e-6
    assert mean_gap(exact, coarse) > 1e-3


def test_weights_come_back_when_the_pass_fails() -> None:
    model = lively(torch.bfloat16)
    with pytest.raises(IndexError), in_float32(model):
        model(input_ids=torch.tensor([[VOCABULARY + 1]]))
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_autocast_and_accelerates_wrapper_stay_outside() -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # of another test; a process has one precision
    model = lively()
    exact = scores_as_stored(model, ROWS)
    prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare_model(model, evaluation_mode=True)
    assert mean_gap(scores_as_stored(prepared, ROWS), exact) > 1e-3
    with torch.autocast("cpu", torch.bfloat16):
        assert mean_gap(log_probs(prepared, ROWS), exact) < 1e-6
    assert mean_gap(scores_as_stored(prepared, ROWS), exact) > 1e-3, "wrapped again"
    AcceleratorState._reset_state()


def test_a_probe_makes_logits_for_the_target_tokens_alone() -> None:
    model, made = small(), []
    model.lm_head.register_forward_hook(lambda module, inputs, output: made.append(output.shape[1]))
    scores = log_probs(model, ROWS)
    assert made == [20, 20, 20]
    assert [len(row) for row in scores] == [20, 20, 20]
    whole = model(input_ids=torch.tensor([ROWS[0].input_ids])).logits[0, :-1].log_softmax(-1)
    expected = [float(whole[i - 1, ROWS[0].input_ids[i]]) for i in range(20, 40)]
    assert scores[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loaded", [torch.float32, torch.bfloat16])
def test_a_fingerprint_knows_its_model_in_every_dtype_and_no_other(stored: torch.dtype, loaded: torch.dtype) -> None:
    probe = take_probe(lively(stored), ROWS)
    same, other = lively(stored).to(loaded), lively(stored)
    with torch.no_grad():  # as far as a short training moves a layer
        other.model.layers[0].self_attn.v_proj.weight.mul_(1.2)
    other = other.to(loaded)
    assert is_model_of(same, log_probs(same, ROWS), probe)
    assert not is_model_of(other, log_probs(other, ROWS), probe)


def test_a_merge_that_loses_the_adapter_is_refused() -> None:
    """Small steps away from weights in 16 bits round to nothing when they are added to them."""
    from rise_train.models.reference import _prove_merge

    for scale, sound in ((1.0, True), (0.1, True), (0.01, False)):
        model = adapted(lively(torch.bfloat16))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.mul_(scale)
        apart = log_probs(model, ROWS)
        with model.disable_adapter():
            moved = mean_gap(log_probs(model, ROWS), apart)
        off = mean_gap(log_probs(model.merge_and_unload(), ROWS), apart)
        if sound:
            assert "the adapter changes" in _prove_merge(off, moved, "bfloat16")
        else:
            with pytest.raises(UserError, match="rounding takes it away; set dtype: float32"):
                _prove_merge(off, moved, "bfloat16")


def test_scattered_weights_are_compared_as_they_are() -> None:
    model = lively(torch.bfloat16)
    next(model.parameters()).ds_id = 0  # as ZeRO-3 marks them
    assert log_probs(model, ROWS) == scores_as_stored(model, ROWS)
    scores = scores_as_stored(model, ROWS)
    near = [[score + COARSE / 2 for score in row] for row in scores]
    far = [[score + COARSE * 2 for score in row] for row in scores]
    assert is_same(scores, near, model)
    assert not is_same(scores, far, model)


def test_a_probe_is_stored_and_read_back(tmp_path: Path) -> None:
    from rise_train.models.fingerprint import read_probe, write_probe

    probe = take_probe(small(), ROWS)
    write_probe(tmp_path, probe)
    assert read_probe(str(tmp_path)) == probe
    assert read_probe(str(tmp_path / "none")) is None


def test_what_is_no_number_is_no_agreement() -> None:
    from rise_train.models.fingerprint import widest_gap

    nan = float("nan")
    assert widest_gap([[-1.0, nan, -2.0]], [[-1.0, -5.0, -2.0]]) == float("inf")
    assert not is_same([[-1.0, nan]], [[-1.0, nan]], small())
