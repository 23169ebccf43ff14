"""Both stages train in every precision that a recipe can ask for; what could not move a weight is refused."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from handmade import PRECISIONS, train
from safetensors.torch import load_file

from rise_train.runs.processes import Launch, refuse_lost_steps
from synthesis.errors import UserError

QUANTISED = {"load_in_4bit": "true"}
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "lora": ("lora", {}),
    "qlora": ("lora", QUANTISED),
    "full": ("full", {}),
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = [f for f in folder.glob("*.safetensors") if f.name in ("model.safetensors", "adapter_model.safetensors")]
    return load_file(file)


@pytest.mark.parametrize("numbers", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["sft", "dpo", "dpo pair by pair"])
def test_every_precision_trains(
    stage: str, kind: str, numbers: str, tiny_dataset: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipe, changes = KINDS[kind]
    if kind == "qlora":
        pytest.importorskip("bitsandbytes")
    start = request.getfixturevalue("tiny_model" if stage == "sft" else f"sft_{recipe}")
    changes = {**changes, **PRECISIONS[numbers], "max_steps": 2, "max_pairs": 6} if stage != "sft" else {
        **changes, **PRECISIONS[numbers], "max_steps": 2,
    }  # fmt: skip
    changes |= {"grouped": "false"} if stage == "dpo pair by pair" else {}
    run = lambda: train(stage.split()[0], recipe, start, tiny_dataset, tmp_path / "out", **changes)  # noqa: E731
    if (kind, numbers) == ("full", "bfloat16"):
        with pytest.raises(UserError, match="set dtype: float32 with bf16: true, or launch it with ZeRO or FSDP"):
            run()
        assert not (tmp_path / "out").exists()
        return
    after = weights(run())
    if stage != "sft":
        before = weights(start)
        moved = torch.cat([(before[name] != after[name]).flatten() for name in before])
        assert moved.float().mean() > 0.9, "nearly every weight moved"
    manifest: dict[str, Any] = json.loads((tmp_path / "out" / "rise_manifest.json").read_text())
    assert math.isfinite(manifest["final_loss"])
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("launch", "dtype", "peft", "bf16", "refused"),
    [
        (Launch(), "bfloat16", False, True, True),
        (Launch("ddp", 2), "bfloat16", False, True, True),
        (Launch(), "float16", False, True, True),
        (Launch("zero1", 2), "bfloat16", False, True, False),
        (Launch("zero3", 2), "bfloat16", False, True, False),
        (Launch("fsdp2", 2), "bfloat16", False, True, False),
        (Launch("fsdp2", 2), "bfloat16", False, False, True),
        (Launch(), "bfloat16", True, True, False),
        (Launch(), "float32", False, True, False),
        (Launch(), "auto", False, True, False),
    ],
)
def test_full_training_in_16_bits_needs_a_float32_copy(
    launch: Launch, dtype: str, peft: bool, bf16: bool, refused: bool, tiny_model: Path
) -> None:
    model = SimpleNamespace(use_peft=peft, dtype=dtype, model_name_or_path=str(tiny_model), model_revision="main")
    training = SimpleNamespace(bf16=bf16, fp16=False)
    if not refused:
        refuse_lost_steps(launch, training, model)
        return
    with pytest.raises(UserError, match="without a float32 copy"):
        refuse_lost_steps(launch, training, model)


def test_auto_is_the_dtype_that_the_model_was_saved_in(tiny_model: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    model = SimpleNamespace(use_peft=False, dtype="auto", model_name_or_path=str(tmp_path), model_revision="main")
    with pytest.raises(UserError, match="dtype: auto: all weights would train without a float32 copy"):
        refuse_lost_steps(Launch(), SimpleNamespace(bf16=True, fp16=False), model)


def test_a_16_bit_weight_beside_an_adapter_is_refused(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    changes = {**PRECISIONS["bfloat16"], "lora_modules_to_save": "embed_tokens", "max_steps": 1}
    with pytest.raises(UserError, match=r"embed_tokens.* would train in bfloat16 without a float32 copy"):
        train("sft", "lora", tiny_model, tiny_dataset, tmp_path / "out", **changes)
