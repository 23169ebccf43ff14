"""What one stage settles for the next."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from handmade import train

from rise_train.models.fingerprint import MANIFEST, hash_model
from rise_train.models.loading import read_tokenizer
from rise_train.runs.manifest import Run, inherit
from synthesis.errors import UserError


def after(parent: Path) -> Run:
    """A stage that starts from `parent`."""
    return Run(Path("out"), "dpo", str(parent), {}, "", "")


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
