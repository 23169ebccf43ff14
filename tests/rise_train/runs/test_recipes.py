"""Every recipe is parsed, counted and dry-run; so is every launch file beside them."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from handmade import ROOT

from rise_train.models.skeleton import BACKBONES, look
from rise_train.runs.dry_run import train
from rise_train.runs.recipe import _has_bfloat16, parse, stage_of
from rise_train.runs.yaml_file import read_mapping

SMALL = ("tiny", "smollm2-135m")
RECIPES = sorted(p for p in (ROOT / "recipes").glob("*/*/config_*.yaml") if p.parts[-3] not in SMALL)
PUBLISHED = {
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "deepseek-ai/deepseek-llm-7b-chat": 6_910_365_696,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
}
"""Parameters, as the models' pages on the Hub give them."""


def kind(path: Path) -> str:
    """`lora`, `qlora` or `full`."""
    return path.stem.removeprefix("config_")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """By Hub id, a folder with the backbone's configuration (two layers, for speed) and a small tokenizer."""
    made = {}
    for name, dimensions in yaml.safe_load(BACKBONES.read_text()).items():
        made[name] = tmp_path_factory.mktemp("backbone")
        (made[name] / "config.json").write_text(json.dumps(dimensions | {"num_hidden_layers": 2}))
        for part in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (made[name] / part).write_text((tiny_model / part).read_text())
    return made


def test_there_are_all_of_them() -> None:
    assert len(RECIPES) == 5 * 2 * 3
    assert {read_mapping(p)["model_name_or_path"] for p in RECIPES if p.parts[-2] == "sft"} == set(PUBLISHED)


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if p.parts[-2] == "sft" and kind(p) != "lora"], ids=lambda p: f"{p.parts[-3]}-{p.stem}"
)
def test_counts(path: Path) -> None:
    """The classes that transformers and peft would load have the published number of parameters."""
    _, _, model = parse("sft", ["--config", str(path)])
    shape = look(model)
    adapters = shape.trainable if model.use_peft else 0
    assert shape.parameters - adapters == PUBLISHED[model.model_name_or_path]
    if model.use_peft:
        assert 0.003 < shape.trainable / shape.parameters < 0.01
        assert shape.trainable_bytes == 4 * shape.trainable  # peft keeps adapters in float32
    halves = shape.frozen_bytes / (shape.parameters - adapters) / 2
    least, most = {"full": (0, 0), "qlora": (0.27, 0.46)}[kind(path)]  # embeddings stay as they are
    assert least <= halves <= most


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: "-".join((p.parts[-3], p.parts[-2], p.stem)))
def test_dry_run(
    path: Path, folders: dict[str, Path], tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole of `rise train --dry-run`; only model and data stand elsewhere. DPO begins where SFT ended."""
    stage = path.parts[-2]
    assert stage_of(path) == stage
    before = read_mapping(path.parents[1] / "sft" / path.name)
    model = folders[before["model_name_or_path"]]
    if stage == "dpo":
        assert read_mapping(path)["model_name_or_path"] == before["output_dir"]
        model = adapter(model, tmp_path) if kind(path) != "full" else model
    for line in path.read_text().splitlines()[1:3]:
        assert line.startswith(f"#   rise train recipes/{path.relative_to(ROOT / 'recipes')}")
    overrides = ["--model_name_or_path", str(model), "--dataset_name", str(tiny_dataset), "--dtype", "bfloat16"]
    config = ROOT / "recipes/accelerate_configs/zero3.yaml" if kind(path) == "full" else None
    assert train(path, overrides, config_file=config, processes=8 if config else None, tflops=None, dry=True) == 0
    said = capsys.readouterr().out
    assert "check passed" in said
    assert f"* {'8 x zero3' if config else '1 x single'}" in said


def adapter(base: Path, folder: Path) -> Path:
    """A folder like the one that an SFT with LoRA leaves, without weights."""
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 16, "lora_alpha": 32}
    config |= {"target_modules": "all-linear", "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for part in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / part).write_text((base / part).read_text())
    return folder


def test_bfloat16_goes_by_the_device_where_a_recipe_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = ROOT / "recipes" / "smollm2-135m" / "sft" / "config_lora.yaml"
    said = ROOT / "recipes" / "qwen3-8b" / "sft" / "config_lora.yaml"
    found = []
    for there in (False, True):
        monkeypatch.setattr("rise_train.runs.recipe._has_bfloat16", lambda there=there: there)
        found += [parse("sft", ["--config", str(path)])[1].bf16 for path in (recipe, said)]
    assert found == [False, True, True, True]


@pytest.mark.parametrize(
    ("device", "supported", "expected"),
    [(None, True, False), ("mps", True, False), ("cuda", True, True), ("cuda", False, False), ("xpu", False, True)],
)
def test_which_devices_have_bfloat16(
    device: str | None, supported: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: device is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(device or "cpu"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert _has_bfloat16() is expected
