"""Weighing the shared tokens of a pair: what it computes, what it leaves alone, and where it is refused."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
from handmade import build_tokenizer, train, trl_template

from rise_train.packing.grouped_dpo import GroupCollator, GroupedDPOTrainer
from rise_train.packing.losses import refuse_weight
from rise_train.rows.groups import differing
from synthesis.errors import UserError

VOCABULARY, BETA = 97, 0.5


def groups(count: int = 3) -> list[dict[str, Any]]:
    """Groups whose answers differ in the middle, by one token or by a deletion."""
    rng = random.Random(0)
    found = []
    for _ in range(count):
        prompt = [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(9, 20))]
        chosen = [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(6, 12))]
        at = rng.randrange(1, len(chosen) - 2)
        other = (chosen[at] - 2) % (VOCABULARY - 3) + 3
        rejected = [[*chosen[:at], other, *chosen[at + 1 :]], [*chosen[:at], *chosen[at + 1 :]]]
        found.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return found


def model(seed: int) -> Any:
    """A random Llama of two layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=256, **sizes))


def trainer(weight: float, out: Path, rows: list[dict[str, Any]], **options: Any) -> GroupedDPOTrainer:
    from datasets import Dataset
    from trl import DPOConfig

    arguments = DPOConfig(
        output_dir=str(out), report_to="none", bf16=False, save_strategy="no", disable_tqdm=True, max_length=None,
        gradient_checkpointing=False, per_device_train_batch_size=4, beta=BETA, use_cpu=True, **options,
    )  # fmt: skip
    reference = None if options.get("precompute_ref_log_probs") else model(1)
    return GroupedDPOTrainer(
        model=model(0), ref_model=reference, args=arguments, train_dataset=Dataset.from_list(rows),
        data_collator=GroupCollator(0, shared_weight=weight), processing_class=build_tokenizer(trl_template("qwen3")),
    )  # fmt: skip


def loss_of(trainer: GroupedDPOTrainer) -> tuple[float, Any]:
    """The loss of all rows, and its gradients."""
    import torch

    trainer.model.train()
    batch = trainer._prepare_inputs(trainer.data_collator(list(trainer.train_dataset)))
    trainer.mean_pairs = len(batch["input_ids"]) / 2
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), torch.cat([w.grad.flatten() for w in trainer.model.parameters()])


def token_scores(model: Any, prompt: list[int], answer: list[int]) -> Any:
    """Log-probabilities of an answer's tokens, by a plain forward pass."""
    import torch

    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]


def by_hand(weight: float, rows: list[dict[str, Any]]) -> tuple[float, Any]:
    """Sigmoid and SFT loss from plain passes, pair by pair, and the gradients of their sum."""
    import torch

    policy, reference = model(0), model(1)
    margins, right = [], []
    for row in rows:
        for rejected in row["rejected_ids"]:
            sides = zip((row["chosen_ids"], rejected), differing(row["chosen_ids"], rejected), strict=True)
            gains = []
            for answer, differs in sides:
                weights = torch.tensor([1.0 if i in differs else weight for i in range(len(answer))])
                scores = token_scores(policy, row["prompt_ids"], answer)
                right += [scores] if answer is row["chosen_ids"] else []
                gains.append((weights * (scores - token_scores(reference, row["prompt_ids"], answer).detach())).sum())
            margins.append(gains[0] - gains[1])
    loss = -torch.nn.functional.logsigmoid(BETA * torch.stack(margins)).mean() - torch.cat(right).mean()
    loss.backward()
    return loss.item(), torch.cat([w.grad.flatten() for w in policy.parameters()])


@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0])
def test_shared_tokens_count_by_their_weight_and_the_sft_term_by_none(weight: float, tmp_path: Path) -> None:
    loss, gradients = loss_of(trainer(weight, tmp_path, groups(), loss_type=["sigmoid", "sft"]))
    expected, expected_gradients = by_hand(weight, groups())
    assert loss == pytest.approx(expected, rel=1e-5)
    cosine = gradients @ expected_gradients / (gradients.norm() * expected_gradients.norm())
    assert float(cosine) > 1 - 1e-6


def test_the_weight_is_in_a_precomputed_reference_too(tmp_path: Path) -> None:
    loss, _ = loss_of(trainer(0.0, tmp_path, groups(), precompute_ref_log_probs=True))
    assert loss == pytest.approx(math.log(2), abs=1e-6), "policy and reference are the same model"


def test_a_weight_of_one_leaves_the_batch_as_it_was() -> None:
    plain, weighted = GroupCollator(0)(groups()), GroupCollator(0, shared_weight=0.5)(groups())
    assert "packed_discounts" not in plain
    assert weighted["input_ids"].shape[1] == plain["input_ids"].shape[1] + 1
    assert weighted["completion_mask"][:, -1].sum() == 0, "the discount stands where no token is"


@pytest.mark.parametrize(
    ("weight", "why", "ld_alpha", "message"),
    [
        (1.5, "", None, "expected a number from 0 to 1, found 1.5"),
        (0.5, "grouped: false", None, r"does not run here \(grouped: false\)"),
        (0.5, "", 0.5, "cannot be combined with ld_alpha"),
    ],
)
def test_what_cannot_be_had_is_refused(weight: float, why: str, ld_alpha: float | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        refuse_weight(weight, why, ld_alpha)
    refuse_weight(1.0, "grouped: false", 0.5)


def test_a_recipe_can_ask_for_it(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shared_weight: needs the grouped trainer"):
        train("dpo", "full", tiny_model, tiny_dataset, tmp_path / "a", shared_weight=0.0, grouped=False)
    out = train("dpo", "full", tiny_model, tiny_dataset, tmp_path / "b", shared_weight=0.0, max_pairs=3)
    assert '"shared_weight": 0.0' in (out / "rise_manifest.json").read_text()
