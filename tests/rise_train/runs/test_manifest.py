"""What one stage settles for the next."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from handmade import ROOT, flags, train

from rise_train.models.fingerprint import MANIFEST, hash_model
from rise_train.models.loading import read_tokenizer
from rise_train.runs.manifest import Run, claimed, inherit
from rise_train.runs.recipe import parse
from synthesis.errors import UserError


def after(parent: Path) -> Run:
    """A stage that starts from `parent`."""
    return Run(Path("out"), "dpo", str(parent), {}, {}, "", "")


def test_the_next_stage_keeps_the_template(sft_full: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    manifest = json.loads((sft_full / MANIFEST).read_text())
    assert manifest["seed"] == 0
    assert manifest["max_length"] == 2048

    tokenizer = read_tokenizer(str(sft_full))
    inherit(after(sft_full), tokenizer)
    inherit(after(tmp_path), SimpleNamespace(chat_template="anything"))  # no stage of ours: nothing is settled
    train("dpo", "full", sft_full, tiny_dataset, tmp_path / "dpo", max_steps=1)

    tokenizer.chat_template += "{# another #}"
    with pytest.raises(UserError, match="another chat template"):
        inherit(after(sft_full), tokenizer)


def test_an_adapter_is_another_model_on_another_base(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder, name, said in ((base, "config.json", {}), (adapter, "adapter_config.json", {"r": 8})):
        folder.mkdir()
        said |= {"base_model_name_or_path": str(base)} if folder is adapter else {}
        (folder / name).write_text(json.dumps(said))
        (folder / "model.safetensors").write_bytes(b"weights")
    before = hash_model(str(adapter)), hash_model(str(base))
    (base / "model.safetensors").write_bytes(b"others")
    assert before[0] != hash_model(str(adapter))
    assert before[1] != hash_model(str(base))


def arguments(model: Path, dataset: Path, out: Path, **changes: Any) -> Any:
    config = str(ROOT / "recipes" / "tiny" / "sft" / "config_full.yaml")
    data, training, model_args = parse("sft", ["--config", config, *flags("sft", model, dataset, out, **changes)])
    return data, model_args, training


def test_a_folder_whose_training_died_before_its_first_checkpoint_is_given_back(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(MemoryError), claimed("sft", *arguments(tiny_model, tiny_dataset, out)):
        raise MemoryError
    with claimed("sft", *arguments(tiny_model, tiny_dataset, out, learning_rate=0.5)) as run:
        assert run.identity["learning_rate"] == 0.5
    (out / "checkpoint-2").mkdir()
    with pytest.raises(UserError, match="holds a training with another learning_rate"):
        claimed("sft", *arguments(tiny_model, tiny_dataset, out, learning_rate=0.25)).__enter__()


def test_where_and_how_to_look_on_is_no_other_training(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claimed("sft", *arguments(tiny_model, tiny_dataset, out, per_device_train_batch_size=4)) as first:
        (out / "checkpoint-2").mkdir()
    same = {"save_steps": 7, "logging_steps": 3, "gradient_checkpointing": "true", "dataset_num_proc": 2}
    same |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "eval_steps": 9}
    with claimed("sft", *arguments(tiny_model, tiny_dataset, out, **same)) as again:
        assert again.config_hash == first.config_hash
        assert again.settings != first.settings, "the manifest tells what was really set"
    for change, name in (
        ({"per_device_train_batch_size": 2}, "rows_a_step"),
        ({"eval_strategy": "epoch"}, "holds_out_rows"),
        ({"seed": 1}, "seed"),
        ({"bf16": "true"}, "bf16"),
    ):
        changed = {"per_device_train_batch_size": 4, **change}
        with pytest.raises(UserError, match=f"another .*{name}"):
            claimed("sft", *arguments(tiny_model, tiny_dataset, out, **changed)).__enter__()


def test_with_a_best_model_saving_and_evaluating_count(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    best = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "load_best_model_at_end": "true"}
    out = tmp_path / "out"
    with claimed("sft", *arguments(tiny_model, tiny_dataset, out, **best)):
        (out / "checkpoint-2").mkdir()
    with pytest.raises(UserError, match="another eval_steps, save_steps"):
        claimed(
            "sft", *arguments(tiny_model, tiny_dataset, out, **best | {"eval_steps": 4, "save_steps": 4})
        ).__enter__()


def test_two_trainings_do_not_share_a_folder(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    asked = arguments(tiny_model, tiny_dataset, tmp_path / "out")
    with claimed("sft", *asked), pytest.raises(UserError, match="another training is at work there"):
        claimed("sft", *asked).__enter__()
    with claimed("sft", *asked):
        pass


def test_weights_of_an_unfinished_training_are_not_taken_over(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with claimed("sft", *arguments(tiny_model, tiny_dataset, out)):
        (out / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="holds a training with another learning_rate"):
        claimed("sft", *arguments(tiny_model, tiny_dataset, out, learning_rate=0.5)).__enter__()


def test_a_model_is_not_trained_into_its_own_folder(tiny_dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    start = shutil.copytree(tiny_model, tmp_path / "start")
    with pytest.raises(UserError, match=r"output_dir: .* is the model that training starts from"):
        claimed("sft", *arguments(start, tiny_dataset, start)).__enter__()


def test_a_checkpoint_without_optimiser_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    run = Run(tmp_path, "sft", "", {}, {}, "", "")
    for step, files in ((2, ("trainer_state.json", "optimizer.pt")), (4, ("trainer_state.json",))):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name in files:
            (tmp_path / f"checkpoint-{step}" / name).write_text("{}")
    assert run.checkpoint() == str(tmp_path / "checkpoint-2")


def test_another_vocabulary_or_template_is_another_model(tmp_path: Path) -> None:
    before = None
    for name in ("tokenizer.json", "chat_template.jinja", "pytorch_model.bin"):
        (tmp_path / name).write_text(name)
        assert hash_model(str(tmp_path)) != before
        before = hash_model(str(tmp_path))


def test_losses_over_a_micro_batch_depend_on_it(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    from rise_train.runs.recipe import identity

    def same(**changes: Any) -> bool:
        config = str(ROOT / "recipes" / "tiny" / "dpo" / "config_full.yaml")
        found = []
        for micro, accumulation in ((4, 1), (2, 2)):
            divided = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulation, **changes}
            argv = ["--config", config, *flags("dpo", tiny_model, tiny_dataset, tmp_path, **divided)]
            found.append(identity(*parse("dpo", argv)))
        return found[0] == found[1]

    plain = {"loss_type": "sigmoid", "loss_weights": 1.0}
    assert same(**plain)
    assert not same()  # the recipe has DPO's `sft` term
    assert not same(**plain, grouped="false")
