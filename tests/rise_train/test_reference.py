"""DPO's reference is the SFT model, proved by log-probabilities (and refused where it is not)."""

import json
from pathlib import Path
from typing import Any

import pytest
from handmade import ROOT, flags

from rise_train.check import CheckReport, check_preference, check_sft, select_pairs
from rise_train.manifest import probe_rows
from rise_train.models import ProbeRow, load_adapter, load_tokenizer, log_probs, read_split, reference_log_probs
from synthesis.errors import UserError


def dpo_trainer(recipe: str, model: Path, dataset: Path, out: Path) -> tuple[Any, CheckReport, Any]:
    """A DPO trainer as the stage builds it, before its first step."""
    from rise_train.config import parse
    from rise_train.dpo import build_trainer

    config = str(ROOT / "recipes" / "tiny" / "dpo" / f"config_{recipe}.yaml")
    _, training, model_args = parse("dpo", ["--config", config, *flags("dpo", model, dataset, out)])
    tokenizer = load_tokenizer(model_args, training)
    groups = select_pairs(read_split(dataset, "preference", "train"), 2, 6, 0)
    report = check_preference(tokenizer, groups, training.max_length)
    trainer, _ = build_trainer(tokenizer, report, training, model_args, out, grouped=True)
    return trainer, report, model_args


def ten_rows(model: Path, dataset: Path) -> list[ProbeRow]:
    """Ten held-out conversations, so that the stored probe is not what is compared."""
    from transformers import AutoTokenizer

    rows = read_split(dataset, "sft", "test") + read_split(dataset, "sft", "train")
    encoded = check_sft(AutoTokenizer.from_pretrained(model), rows[:10], None).encoded
    return [ProbeRow(str(i), e.input_ids, e.labels) for i, e in enumerate(encoded)]


def test_full_reference_is_the_sft_model(sft_full: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    trainer, _, _ = dpo_trainer("full", sft_full, tiny_dataset, tmp_path)
    rows = ten_rows(sft_full, tiny_dataset)
    reference = reference_log_probs(trainer, rows)
    assert len(reference) == 10
    assert reference == pytest.approx(log_probs(AutoModelForCausalLM.from_pretrained(sft_full), rows), rel=1e-6)
    assert reference != pytest.approx(log_probs(AutoModelForCausalLM.from_pretrained(tiny_model), rows), rel=1e-4)


def test_lora_reference_is_the_sft_adapter(
    sft_lora: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    trainer, _, _ = dpo_trainer("lora", sft_lora, tiny_dataset, tmp_path)
    rows = ten_rows(sft_lora, tiny_dataset)
    reference = reference_log_probs(trainer, rows)
    assert reference == pytest.approx(log_probs(load_adapter(str(sft_lora), {}), rows), rel=1e-6)
    assert reference != pytest.approx(log_probs(AutoModelForCausalLM.from_pretrained(tiny_model), rows), rel=1e-4)


@pytest.mark.parametrize("what", ["policy", "both"])
def test_a_wrong_reference_stops(what: str, sft_lora: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    import torch

    from rise_train.dpo import prove_reference

    trainer, report, model_args = dpo_trainer("lora", sft_lora, tiny_dataset, tmp_path)
    assert "equal those its training left" in prove_reference(trainer, report, model_args)
    # The base model as reference (what TRL gives for a base with a fresh adapter), or as reference and policy.
    names = (".ref.",) if what == "policy" else (".ref.", ".default.")
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name and any(part in name for part in names):
                weight.zero_()
    with pytest.raises(UserError, match="starts from" if what == "policy" else "its training left"):
        prove_reference(trainer, report, model_args)


def test_probe_is_stored_with_the_model(sft_full: Path, tiny_dataset: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = read_split(tiny_dataset, "sft", "train")[:8]
    expected = probe_rows(check_sft(AutoTokenizer.from_pretrained(sft_full), rows, None).encoded)
    stored = json.loads((sft_full / "rise_manifest.json").read_text())["probe"]
    assert len(stored) == 8
    scores = log_probs(AutoModelForCausalLM.from_pretrained(sft_full), expected)
    assert list(stored.values()) == pytest.approx(scores, rel=1e-6)


def test_scoring_only_targets_changes_no_loss_and_no_gradient(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer import utils

    from rise_train.models import score_only_targets

    def loss_and_gradient() -> tuple[float, Any]:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        utils.add_fused_lm_head(model)
        output = model(input_ids=ids, labels=labels, fused_lm_head=True)
        output.loss.backward()
        return output.loss.item(), model.model.embed_tokens.weight.grad

    ids = torch.arange(40).reshape(2, 20) + 300
    labels = ids.clone()
    labels[:, :13] = -100
    before = utils._use_triton
    try:
        utils._use_triton = lambda device: False  # TRL's own choice on a CPU
        loss, gradient = loss_and_gradient()
        score_only_targets()
        assert utils._use_triton(torch.device("cpu"))
        compact_loss, compact_gradient = loss_and_gradient()
    finally:
        utils._use_triton = before
    assert compact_loss == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(compact_gradient, gradient, rtol=1e-5, atol=1e-8)
