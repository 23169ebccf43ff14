"""Validation while training: on rows that are not trained on, early stopping, and the best checkpoint as the result."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from handmade import ROOT, flags, train
from safetensors.torch import load_file

from rise_train.rows.recipe_rows import load_rows
from rise_train.runs.recipe import parse
from synthesis.errors import UserError

EVALUATE = {"eval_strategy": "steps", "eval_steps": 2}


def arguments(stage: str, dataset: Path, **changes: Any) -> Any:
    config = str(ROOT / "recipes" / "tiny" / stage / "config_full.yaml")
    return parse(stage, ["--config", config, *flags(stage, Path("model"), dataset, Path("out"), **changes)])  # type: ignore[arg-type]


def history(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "log_history.json").read_text())
    return found


def test_held_out_rows_are_whole_trajectories_the_same_in_both_tables(tiny_dataset: Path) -> None:
    parts: dict[str, list[set[str]]] = {}
    for stage in ("sft", "dpo"):
        data, _, _ = arguments(stage, tiny_dataset, **EVALUATE)
        sides = [load_rows(data, stage, part, seed=0) for part in ("train", "validation", "all")]  # type: ignore[arg-type]
        assert len(sides[0]) + len(sides[1]) == len(sides[2])
        parts[stage] = [{row["meta"]["trajectory_id"] for row in side} for side in sides[:2]]
        assert not parts[stage][0] & parts[stage][1]
        assert 0 < len(parts[stage][1]) < len(parts[stage][0])
    assert not parts["sft"][0] & parts["dpo"][1]
    assert not parts["dpo"][0] & parts["sft"][1]


@pytest.mark.parametrize(("stage", "changes"), [("sft", {}), ("dpo", {}), ("dpo", {"grouped": "false"})])
def test_the_validation_loss_is_told_as_it_goes(
    stage: str,
    changes: dict[str, Any],
    sft_full: Path,
    tiny_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = train(stage, "full", sft_full, tiny_dataset, tmp_path / "out", **EVALUATE, **changes)
    said = capsys.readouterr().out
    assert "that are not trained on" in said
    assert "validation loss" in said
    losses = {entry["step"]: entry["eval_loss"] for entry in history(out) if "eval_loss" in entry}
    assert len(losses) >= 1
    assert all(loss > 0 for loss in losses.values())
    assert json.loads((out / "rise_manifest.json").read_text())["data"]["rows"] < (18 if stage == "sft" else 16)


def test_a_split_of_the_dataset_is_validated_on(sft_full: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    out = train("sft", "full", sft_full, tiny_dataset, tmp_path / "out", **EVALUATE, dataset_eval_split="test")
    assert json.loads((out / "rise_manifest.json").read_text())["data"]["rows"] == 18
    with pytest.raises(UserError, match="has no split 'dev', only train, test"):
        train("sft", "full", sft_full, tiny_dataset, tmp_path / "no", **EVALUATE, dataset_eval_split="dev")


@pytest.mark.parametrize(("stage", "recipe", "start"), [("sft", "full", "tiny_model"), ("dpo", "lora", "sft_lora")])
def test_a_training_that_gains_nothing_stops_and_leaves_its_best(
    stage: str,
    recipe: str,
    start: str,
    tiny_dataset: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """At a rate that ruins the model every further evaluation is worse than the first."""
    changes = {"learning_rate": 3.0, "num_train_epochs": 8, "save_steps": 2, "early_stopping_patience": 2, **EVALUATE}
    out = tmp_path / "out"
    train(stage, recipe, request.getfixturevalue(start), tiny_dataset, out, **changes, max_grad_norm=0)
    entries = history(out)
    losses = {entry["step"]: entry["eval_loss"] for entry in entries if "eval_loss" in entry}
    best = min(losses, key=lambda step: losses[step])
    last = max(entry["step"] for entry in entries)
    assert last == best + 4, "two evaluations after the best"
    name = "adapter_model.safetensors" if recipe == "lora" else "model.safetensors"
    kept, saved = load_file(out / name), load_file(out / f"checkpoint-{best}" / name)
    assert all((kept[key] == saved[key]).all() for key in kept)
    assert not (out / "ref").exists()


def test_what_cannot_be_validated_is_refused(tiny_dataset: Path) -> None:
    for name, value in (("early_stopping_patience", 2), ("dataset_eval_split", "test")):
        with pytest.raises(UserError, match=f"{name}: nothing is validated; set eval_strategy"):
            arguments("sft", tiny_dataset, **{name: value})
    with pytest.raises(UserError, match="save_strategy: the best checkpoint is kept"):
        arguments("sft", tiny_dataset, early_stopping_patience=2, eval_strategy="epoch")


def test_a_batch_fits_in_validation_as_in_training(tiny_dataset: Path) -> None:
    assert arguments("sft", tiny_dataset, **EVALUATE)[1].per_device_eval_batch_size == 3
    asked = arguments("sft", tiny_dataset, **EVALUATE, per_device_eval_batch_size=5)
    assert asked[1].per_device_eval_batch_size == 5


def test_a_resumed_training_is_no_more_patient(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    changes = {"learning_rate": 3.0, "num_train_epochs": 8, "save_steps": 1, "early_stopping_patience": 4, **EVALUATE}
    changes |= {"eval_steps": 1, "save_total_limit": 20, "max_grad_norm": 0}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train("sft", "full", tiny_model, tiny_dataset, straight, **changes)
    last = max(entry["step"] for entry in history(straight))
    broken.mkdir()
    shutil.copy(straight / "rise_run.json", broken)
    for step in range(1, last - 1):
        shutil.copytree(straight / f"checkpoint-{step}", broken / f"checkpoint-{step}")
    train("sft", "full", tiny_model, tiny_dataset, broken, **changes)
    assert max(entry["step"] for entry in history(broken)) == last
