"""SFT rows that share their beginnings give the losses and gradients of the rows one by one."""

import copy
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from handmade import ROOT, build_tokenizer, flags, train, trl_template
from models import VOCABULARY, small

from rise_train.packing.shared_prefix import SharedPrefixCollator, self_check, share, unshared
from rise_train.rows.batches import arrange
from rise_train.runs.dry_run import survey
from rise_train.runs.recipe import parse
from synthesis.errors import UserError

IGNORED = -100


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(trl_template("qwen3"))


def random_rows(count: int, common: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of several targets over a common beginning; some share more than that, up to their first target."""
    rng = random.Random(seed)

    def tokens(length: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(length)]

    first, second = tokens(common), tokens(6)
    rows = []
    for i in range(count):
        ids = [*first, *(second if i % 2 else tokens(rng.randint(3, 8)))]
        labels = [IGNORED] * len(ids)
        for _ in range(2):
            target, between = tokens(rng.randint(2, 5)), tokens(rng.randint(2, 5))
            ids += target + between
            labels += target + [IGNORED] * len(between)
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def trainer_of(shared: bool, model: Any, rows: list[dict[str, Any]], tokenizer: Any, out: Path, **options: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    peft_config = options.pop("peft_config", None)
    options = {"per_device_train_batch_size": len(rows), "gradient_checkpointing": False, **options}
    trainer = SFTTrainer(
        model=copy.deepcopy(model).train(),
        args=SFTConfig(
            output_dir=str(out), report_to="none", bf16=False, save_strategy="no", disable_tqdm=True, max_length=None,
            dataloader_pin_memory=False, use_cpu=True, logging_steps=1, train_sampling_strategy="sequential", **options,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft_config,
    )  # fmt: skip
    if shared:
        share(trainer, trainer.train_dataset)
    return trainer


def loss_and_gradients(trainer: Any, rows: list[dict[str, Any]]) -> tuple[float, torch.Tensor]:
    batch = trainer._prepare_inputs(trainer.data_collator(rows))
    assert ("tree_end" in batch) == isinstance(trainer.data_collator, SharedPrefixCollator)
    items = trainer._get_num_items_in_batch([batch], "cpu")
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=items)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]).double()


@pytest.mark.parametrize(
    ("kind", "model_options", "options"),
    [
        ("qwen3", {}, {}),
        ("llama", {"attn_implementation": "eager"}, {"gradient_checkpointing": True}),
        ("mistral", {"sliding_window": 12}, {}),
        ("llama", {}, {"lora": True}),
    ],
    ids=["qwen3", "eager, checkpointing", "sliding window", "lora"],
)
def test_loss_and_gradients_are_those_of_padded_rows(
    kind: str, model_options: dict[str, Any], options: dict[str, Any], tokenizer: Any, tmp_path: Path
) -> None:
    from peft import LoraConfig

    if options.pop("lora", False):
        options["peft_config"] = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    rows, model = random_rows(5), small(kind, **model_options)
    torch.manual_seed(3)
    shared, stock = (
        loss_and_gradients(trainer_of(way, model, rows, tokenizer, tmp_path, **copy.deepcopy(options)), rows)
        for way in (True, False)
    )
    assert shared[0] == pytest.approx(stock[0], rel=1e-6)
    norms = shared[1].norm() * stock[1].norm()
    assert float(shared[1] @ stock[1] / norms) > 1 - 1e-6
    assert float(shared[1].norm()) == pytest.approx(float(stock[1].norm()), rel=1e-5)


def test_a_whole_training_has_the_stock_curve(tokenizer: Any, tmp_path: Path) -> None:
    """Batches that share and batches that do not, over accumulation steps."""
    rows = [*random_rows(8), *random_rows(4, common=1, seed=1)]
    curves = []
    for way in (True, False):
        trainer = trainer_of(
            way, small("llama"), rows, tokenizer, tmp_path, per_device_train_batch_size=4, learning_rate=3e-3,
            gradient_accumulation_steps=3, num_train_epochs=6, lr_scheduler_type="constant",
        )  # fmt: skip
        trainer.train()
        curves.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(curves[0]) == 6
    assert curves[0] == pytest.approx(curves[1], abs=2e-4)
    assert curves[0][-1] < curves[0][0] - 0.2


def test_only_what_pays_is_packed() -> None:
    collator, rows = SharedPrefixCollator(0, 32), random_rows(4)
    trie = collator.worth_packing(rows)
    assert trie is not None
    assert len(trie) < 0.6 * sum(len(row["input_ids"]) for row in rows)
    assert collator.worth_packing(rows[:1]) is None
    few = [{"input_ids": [3, 10 + i, *range(40, 50)], "labels": [IGNORED] * 11 + [49]} for i in range(4)]
    assert collator.worth_packing(few) is None  # of twelve tokens they share one
    other = [{**row, "input_ids": [4 + i, *row["input_ids"][1:]]} for i, row in enumerate(rows)]
    assert collator.worth_packing(other) is None
    assert collator(other)["input_ids"].shape[0] == 4


def test_a_mask_over_many_rows_has_its_price() -> None:
    """Sixteen rows that share a third have fewer tokens: a wide model gains, a narrow one pays more in attention."""
    rows = [{"input_ids": [3] * 100 + [10 + i] * 200, "labels": [IGNORED] * 299 + [9]} for i in range(16)]
    assert SharedPrefixCollator(0, 4096).worth_packing(rows) is not None
    assert SharedPrefixCollator(0, 64).worth_packing(rows) is None


def test_rows_that_begin_alike_come_into_one_batch() -> None:
    sets = [random_rows(4, seed=seed) for seed in range(6)]
    rows = [group[i] for i in range(4) for group in sets]  # mixed
    arguments = SimpleNamespace(
        train_sampling_strategy="random",
        seed=0,
        data_seed=None,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        world_size=1,
    )
    order = arrange([len(row["input_ids"]) for row in rows], arguments, [row["input_ids"] for row in rows])
    assert arguments.train_sampling_strategy == "sequential"
    assert sorted(order) == list(range(24))
    for at in range(0, 24, 4):
        assert SharedPrefixCollator(0, 32).worth_packing([rows[i] for i in order[at : at + 4]]) is not None


def test_the_self_check_passes_and_finds_a_wrong_mask(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = random_rows(4)
    trainer = trainer_of(True, small("llama"), rows, tokenizer, tmp_path)
    assert "1 of 1 batches share" in capsys.readouterr().out
    assert self_check(trainer, rows) < 1e-4
    monkeypatch.setattr("rise_train.packing.shared_prefix.masks", lambda *args: None)  # rows see each other
    with pytest.raises(UserError, match="set shared_prefix: false"):
        self_check(trainer, rows)


def test_what_cannot_share_says_why(tmp_path: Path) -> None:
    from transformers import AutoConfig

    plain = {"label_smoothing_factor": 0.0, "packing": False, "padding_free": False}
    for kind, attention, options, reason in (
        ("llama", None, {}, ""),
        ("llama", None, {"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ("llama", None, {"packing": True}, "packing"),
        ("llama", "flash_attention_2", {}, "takes no mask"),
        ("qwen3_next", None, {}, "linear_attention"),
    ):
        AutoConfig.for_model(kind).save_pretrained(tmp_path)
        model = SimpleNamespace(model_name_or_path=str(tmp_path), attn_implementation=attention)
        found = unshared(model, SimpleNamespace(**{**plain, **options}))
        assert reason in found
        assert bool(found) == bool(reason)


def test_a_recipe_may_ask_for_it(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = train("sft", "full", tiny_model, tiny_dataset, tmp_path / "shared", shared_prefix=True)
    said = capsys.readouterr().out
    assert "share what their rows begin with" in said
    assert json.loads((out / "rise_manifest.json").read_text())["final_loss"] > 0

    arguments = flags("sft", tiny_model, tiny_dataset, tmp_path / "dry", shared_prefix=True)
    work = survey("sft", *parse("sft", ["--config", str(ROOT / "recipes/tiny/sft/config_full.yaml"), *arguments]))
    assert f": {work.tokens:,} tokens an epoch instead of " in said, "what a dry run says beforehand"
