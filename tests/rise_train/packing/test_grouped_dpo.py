"""Grouped DPO computes what the stock trainer computes on the same pairs: losses, gradients, whole trainings."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
from handmade import build_tokenizer, trl_template
from models import VOCABULARY, lively, small

from rise_train.packing import grouped_dpo
from rise_train.packing.grouped_dpo import GroupCollator, GroupedDPOTrainer, install, self_check
from synthesis.errors import UserError

ALL_LOSSES = [
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(trl_template("qwen3"))


def random_groups(count: int, seed: int = 0, most: int = 4) -> list[dict[str, Any]]:
    """Groups of unequal K, lengths and shared beginnings."""
    rng = random.Random(seed)
    groups = []
    for _ in range(count):
        chosen = [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(6, 12))]
        rejected = []
        for _ in range(rng.randint(1, most)):
            wrong = chosen[:]
            wrong[rng.randrange(len(wrong) - 1)] = rng.randrange(3, VOCABULARY)
            rejected.append(wrong[: rng.randint(len(wrong) // 2, len(wrong))] if rng.random() < 0.5 else wrong)
        prompt = [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(9, 30))]
        groups.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return groups


def pairs_of(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**group, "rejected_ids": rejected} for group in groups for rejected in group["rejected_ids"]]


def trainer_of(grouped: bool, model: Any, groups: list[dict[str, Any]], out: Path, **options: Any) -> Any:
    """A trainer of either kind; the reference of a full model is a shifted copy, so that margins are not 0."""
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Stock(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    options = {"per_device_train_batch_size": 4, "gradient_checkpointing": False, "beta": 0.5, "bf16": False, **options}
    peft_config, tokenizer = options.pop("peft_config", None), options.pop("tokenizer")
    one_row = options.pop("one_row", False)
    model, reference = copy.deepcopy(model), copy.deepcopy(model) if peft_config is None else None
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in reference.parameters() if reference else ():
            weight.add_(0.05 * torch.randn_like(weight))
    arguments = DPOConfig(
        output_dir=str(out), report_to="none", save_strategy="no", disable_tqdm=True, max_length=None,
        dataloader_pin_memory=False, logging_steps=1, lr_scheduler_type="constant", use_cpu=True, **options,
    )  # fmt: skip
    rows = groups if grouped else pairs_of(groups)
    kind, collator = (GroupedDPOTrainer, GroupCollator(0, one_row)) if grouped else (Stock, None)
    return kind(
        model=model, ref_model=reference, args=arguments, train_dataset=Dataset.from_list(rows), data_collator=collator,
        processing_class=tokenizer, peft_config=peft_config,
    )  # fmt: skip


def loss_and_gradients(trainer: Any, rows: list[dict[str, Any]]) -> tuple[float, Any]:
    import torch

    trainer.model.train()
    batch = trainer._prepare_inputs(trainer.data_collator(rows))
    if isinstance(trainer, GroupedDPOTrainer):
        trainer.mean_pairs = len(batch["input_ids"]) / 2
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
    assert gradients
    return loss.item(), torch.cat(gradients)


def cosine(left: Any, right: Any) -> float:
    return float((left.double() @ right.double()) / (left.double().norm() * right.double().norm()))


def compare(model: Any, tokenizer: Any, tmp_path: Path, **options: Any) -> None:
    """One loss and its gradients, by both trainers on the same pairs."""
    groups = random_groups(3)
    both = []
    for grouped in (True, False):
        trainer = trainer_of(grouped, model, groups, tmp_path, tokenizer=tokenizer, **copy.deepcopy(options))
        rows = list(trainer.train_dataset)
        both.append(loss_and_gradients(trainer, rows))
    (loss, gradients), (stock_loss, stock_gradients) = both
    assert loss == pytest.approx(stock_loss, rel=2e-5, abs=1e-6)
    assert cosine(gradients, stock_gradients) > 1 - 1e-6
    assert float(gradients.norm()) == pytest.approx(float(stock_gradients.norm()), rel=1e-4)


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_every_loss_of_trl_is_the_stock_trainers(loss: str, tokenizer: Any, tmp_path: Path) -> None:
    smoothing = {"label_smoothing": 0.1} if loss in ("exo_pair", "robust") else {}
    compare(small(), tokenizer, tmp_path, loss_type=[loss], **smoothing)


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
        {"use_weighting": True},
        {"ld_alpha": 0.5},
        {"f_divergence_type": "js_divergence"},
        {"gradient_checkpointing": True},
        {"precompute_ref_log_probs": True},
        {"one_row": True},
    ],
    ids=["mixed", "weighted", "length-desensitised", "divergence", "checkpointing", "precomputed", "one row"],
)
def test_the_other_options_too(options: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    compare(small(), tokenizer, tmp_path, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"attn_implementation": "eager"}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": 8}),
        ("gemma2", {"sliding_window": 8}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_models_of_other_families_too(kind: str, options: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    compare(small(kind, **options), tokenizer, tmp_path)


def test_adapters_are_switched_as_ever(tokenizer: Any, tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    compare(small(), tokenizer, tmp_path, peft_config=config)


def test_differing_tokens_are_logged_apart(tokenizer: Any, tmp_path: Path) -> None:
    """By hand: the log-probabilities of one pair's answers, on the one token that differs."""
    import torch

    group = {"prompt_ids": [5, 6, 7], "chosen_ids": [10, 11, 12, 2], "rejected_ids": [[10, 44, 12, 2]]}
    trainer = trainer_of(True, small(), [group], tmp_path, tokenizer=tokenizer)
    loss_and_gradients(trainer, [group])

    def score(model: Any, answer: list[int]) -> float:
        logits = model(torch.tensor([[5, 6, 7, *answer]])).logits[0].log_softmax(-1)
        return logits[3, answer[1]].item()

    policy = [score(trainer.model, answer) for answer in ([10, 11], [10, 44])]
    reference = [score(trainer.ref_model, answer) for answer in ([10, 11], [10, 44])]
    logged = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert logged["logps/chosen_differing"] == pytest.approx(policy[0], rel=1e-4)
    assert logged["logps/rejected_differing"] == pytest.approx(policy[1], rel=1e-4)
    margin = 0.5 * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
    assert logged["rewards/margins_differing"] == pytest.approx(margin, rel=1e-3, abs=1e-5)
    assert logged["rewards/margins"] != pytest.approx(margin, rel=1e-2)


def test_right_answers_that_become_unlikely_are_reported_once(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rise_train.runs.training_log import ProgressCallback

    for loss, rate, said in (("sigmoid", 0.05, 1), ("sft", 0.005, 0)):
        trainer = trainer_of(
            True, small(), random_groups(6), tmp_path, tokenizer=tokenizer, loss_type=[loss], learning_rate=rate,
            num_train_epochs=6,
        )  # fmt: skip
        trainer.add_callback(ProgressCallback("dpo", tmp_path))
        trainer.train()
        assert capsys.readouterr().err.count("have become less likely") == said


@pytest.mark.parametrize("one_row", [False, True])
def test_log_probabilities_are_those_of_the_pairs(one_row: bool) -> None:
    """Summed over each answer, within a millionth, in prompts of some hundred tokens."""
    import torch
    from trl.trainer.dpo_trainer import DataCollatorForPreference
    from trl.trainer.utils import add_fused_lm_head

    groups = random_groups(3)
    rng = random.Random(1)
    for group in groups:
        group["prompt_ids"] = [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(150, 200))]
    model = small()
    add_fused_lm_head(model)
    install(model)
    sums = []
    for batch in (GroupCollator(0, one_row)(groups), DataCollatorForPreference(0)(pairs_of(groups))):
        labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
        with torch.no_grad():
            sums.append(model(**batch, labels=labels, fused_lm_head=True).log_probs.sum(dim=1))
    assert len(sums[0]) == 2 * sum(len(group["rejected_ids"]) for group in groups)
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-6, atol=0)


def test_pairs_weigh_alike_however_groups_fall_into_batches(tokenizer: Any, tmp_path: Path) -> None:
    """Unequal groups over four micro-batches of one step give the loss curve of one batch that holds them all."""
    groups = random_groups(8, seed=3)
    assert len({len(group["rejected_ids"]) for group in groups}) > 1
    curves = []
    for batch, accumulation in ((4, 1), (1, 4)):
        trainer = trainer_of(
            True, small(), groups, tmp_path, tokenizer=tokenizer, per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation, num_train_epochs=4, learning_rate=1e-2,
            train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer.train()
        curves.append(torch_flat(trainer.model))
    assert cosine(curves[0], curves[1]) > 1 - 1e-6
    assert float((curves[0] - curves[1]).abs().max()) < 1e-3


def torch_flat(model: Any) -> Any:
    import torch

    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_a_whole_training_has_the_stock_trainers_curve(tokenizer: Any, tmp_path: Path) -> None:
    groups = [g for g in random_groups(30, seed=5) if len(g["rejected_ids"]) == 2]
    curves = []
    for grouped in (True, False):
        trainer = trainer_of(
            grouped, small(), groups, tmp_path, tokenizer=tokenizer, per_device_train_batch_size=1 if grouped else 2,
            num_train_epochs=2, learning_rate=5e-3, train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer.train()
        curves.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(curves[0]) == len(curves[1]) >= 10
    assert curves[0] == pytest.approx(curves[1], abs=2e-4)
    assert curves[0][-1] < curves[0][0]


@pytest.mark.parametrize(("dtype", "bf16"), [("float32", False), ("float32", True), ("bfloat16", True)])
def test_the_self_check_passes_and_finds_a_wrong_mask_and_a_wrong_position(
    dtype: str, bf16: bool, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from rise_train.packing.trie import pack

    groups = random_groups(2)
    model = lively(getattr(torch, dtype))
    trainer = trainer_of(True, model, groups, tmp_path, tokenizer=tokenizer, bf16=bf16)
    group = max(groups, key=lambda g: len(g["rejected_ids"]))
    assert self_check(trainer, group) < 1e-4
    with monkeypatch.context() as patch:
        patch.setattr("rise_train.packing.grouped_dpo.masks", lambda *args: None)  # answers see each other
        with pytest.raises(UserError, match="set grouped: false"):
            self_check(trainer, group)

    def shifted(*args: Any) -> Any:
        trie = pack(*args)
        trie.positions[-3:] = [position + 1 for position in trie.positions[-3:]]
        return trie

    monkeypatch.setattr("rise_train.packing.grouped_dpo.pack", shifted)
    with pytest.raises(UserError, match="set grouped: false"):
        self_check(trainer, group)


def test_a_wrong_position_that_rounding_hides_is_found(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 the error is half of what rounding may be; in float32 it is 270 times the limit."""
    import torch

    from rise_train.packing import packing_proof as both_ways
    from rise_train.packing.trie import pack

    model = lively()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(0.5 if "q_proj" in name or "k_proj" in name else 1.0)
    groups = random_groups(2)
    trainer = trainer_of(True, model.to(torch.bfloat16), groups, tmp_path, tokenizer=tokenizer, bf16=True)
    group = max(groups, key=lambda g: len(g["rejected_ids"]))

    def shifted(*args: Any) -> Any:
        trie = pack(*args)
        trie.positions[-3:] = [position + 1 for position in trie.positions[-3:]]
        return trie

    monkeypatch.setattr(grouped_dpo, "pack", shifted)
    with pytest.raises(UserError, match="set grouped: false"):
        self_check(trainer, group)
    passed: list[bool] = []
    monkeypatch.setattr(both_ways, "_refuse", lambda gap, limit, remedy: passed.append(gap <= limit))
    self_check(trainer, group)
    assert passed == [False, True], "in float32, and as training computes"


def test_a_packed_way_that_rounds_worse_than_pairs_is_refused(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is right in float32 can still be wrong in the precision that training has."""
    import torch

    groups = random_groups(2)
    trainer = trainer_of(True, lively(torch.bfloat16), groups, tmp_path, tokenizer=tokenizer, bf16=True)
    masks = grouped_dpo.masks

    def only_in_float32(config: Any, dtype: Any, *args: Any) -> Any:
        return masks(config, dtype, *args) if not torch.is_autocast_enabled("cpu") else None

    monkeypatch.setattr(grouped_dpo, "masks", only_in_float32)
    with pytest.raises(UserError, match="set grouped: false"):
        self_check(trainer, groups[0])
