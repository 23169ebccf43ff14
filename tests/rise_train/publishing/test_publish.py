"""`rise publish`: what is copied or merged, what is refused, and that the copy is proved."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import rise_train.publishing.publish as module
from rise_train.publishing import clean_load
from rise_train.publishing import same_replies as trial
from rise_train.publishing.model_files import Source, copy_model, merge_model
from rise_train.publishing.publish import publish
from rise_train.publishing.same_replies import prove_same, trial_prompts
from synthesis.errors import UserError


def quiet() -> Console:
    """A console that prints into a string."""
    return Console(file=io.StringIO(), width=120)


@pytest.fixture
def trained(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder with everything that a training leaves lying about."""
    model = tmp_path / "trained"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "_name_or_path": str(tmp_path / "base")}))
    manifest = {"stage": "sft", "base": str(tmp_path / "base"), "parent": str(tmp_path / "base"), "final_loss": 0.5}
    (model / "rise_manifest.json").write_text(json.dumps(manifest))
    for name in ("optimizer.pt", "training_args.bin", "log_history.json", "checkpoint-2/model.safetensors"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"x")
    return model


def test_a_model_is_copied_clean_and_proved(trained: Path, tiny_dataset: Path) -> None:
    console = quiet()
    target = publish(trained, dataset=tiny_dataset, console=console)
    assert target == trained.with_name("trained-publish")
    expected = {"README.md", "chat_template.jinja", "config.json", "examples.json", "generation_config.json"}
    expected |= {"lineage.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in target.iterdir()} == expected
    assert "_name_or_path" not in json.loads((target / "config.json").read_text())
    assert str(trained.parent) not in "".join(p.read_text() for p in target.iterdir() if p.suffix != ".safetensors")
    examples = json.loads((target / "examples.json").read_text())
    assert len(examples) == 3
    assert all(example["reply_ids"] and example["tools"] for example in examples)
    assert "nothing was uploaded" in console.file.getvalue()  # type: ignore[attr-defined]
    assert not target.with_name(target.name + ".part").exists()
    _answers_as_its_examples(target, examples)


def _answers_as_its_examples(folder: Path, examples: list[dict[str, Any]]) -> None:
    from eval.policies.base import Prompt
    from eval.policies.local import LocalPolicy

    policy = LocalPolicy(folder, batch_size=1, max_new_tokens=96)
    replies = policy.reply([Prompt(example["messages"], example["tools"]) for example in examples])
    assert [reply.text for reply in replies] == [example["reply"] for example in examples]


def test_a_copy_that_answers_otherwise_is_not_published(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    def spoil(found: Source, target: Path, base_id: str | None) -> None:
        copy_model(found, target, base_id)
        weights = load_file(target / "model.safetensors")
        save_file({k: -v.flip(0) for k, v in weights.items()}, target / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(module, "copy_model", spoil)
    with pytest.raises(UserError, match="gives other replies than"):
        publish(trained, console=quiet())
    assert sorted(path.name for path in trained.parent.iterdir()) == ["trained"]


def test_a_copy_that_does_not_load_is_not_published(trained: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    copy_model(Source(trained), broken, None)
    (broken / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(UserError, match="the copy does not load in a clean process"):
        prove_same(Source(trained), broken, trial_prompts(None)[:1])


def test_an_adapter_on_a_local_base_needs_its_id(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adapter_config.json: base_model_name_or_path is a folder .* --base-id"):
        publish(adapter, tmp_path / "out", console=quiet())
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_published_merged_into_its_base(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard
    from safetensors.torch import load_file

    target = publish(adapter, tmp_path / "out", merged=True, console=quiet())
    names = {path.name for path in target.iterdir()}
    assert {"model.safetensors", "config.json", "chat_template.jinja", "tokenizer.json"} <= names
    assert not any(name.startswith("adapter") for name in names)
    base, merged = load_file(tiny_model / "model.safetensors"), load_file(target / "model.safetensors")
    delta = load_file(adapter / "adapter_model.safetensors")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    for name, weight in base.items():
        path = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{path}.lora_A.weight" in delta:
            product = delta[f"{path}.lora_B.weight"] @ delta[f"{path}.lora_A.weight"]
            weight = weight + product * settings["lora_alpha"] / settings["r"]
            assert product.abs().max() > 1e-3
        assert (merged[name] - weight).abs().max() < 1e-6, name
    card = ModelCard.load(target / "README.md")
    assert "A language model (a LoRA adapter merged into its base)" in card.text
    assert (card.data.library_name, "lora" in card.data.tags) == ("transformers", True)
    _answers_as_its_examples(target, json.loads((target / "examples.json").read_text()))


def test_a_merged_model_has_the_type_of_its_base(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    folder, base = tmp_path / "adapter", tmp_path / "base"
    shutil.copytree(adapter, folder)
    AutoModelForCausalLM.from_pretrained(tiny_model).to(torch.bfloat16).save_pretrained(base)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(base)}))
    (tmp_path / "out").mkdir()
    merge_model(Source(folder), tmp_path / "out")
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert trial._rounding(Source(folder), tmp_path / "out") == "bfloat16"
    assert str(base) not in (tmp_path / "out" / "config.json").read_text()


def test_a_merge_that_did_not_happen_is_noticed_by_how_likely_the_replies_are(
    adapter: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = trial_prompts(None)[:1]
    with_adapter = clean_load.answer(str(adapter), prompts)
    without = clean_load.answer(str(tiny_model), prompts)
    lucky = [{**with_adapter[0], "log_prob": without[0]["log_prob"]}]
    monkeypatch.setattr(trial, "_both", lambda found, copy, prompts: (with_adapter, lucky))
    with pytest.raises(UserError, match="gives other replies than"):
        prove_same(Source(adapter), tiny_model, prompts)
    monkeypatch.setattr(trial, "_both", lambda found, copy, prompts: (with_adapter, with_adapter))
    assert prove_same(Source(adapter), tiny_model, prompts)[0]["reply_ids"] == with_adapter[0]["ids"]


def test_what_cannot_be_merged_is_refused(trained: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--merged: .*trained is a full model already"):
        publish(trained, merged=True, console=quiet())
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    settings = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**settings, "peft_type": "PROMPT_TUNING"}))
    with pytest.raises(UserError, match="is PROMPT_TUNING; only LoRA adapters can be merged"):
        publish(other, tmp_path / "out", merged=True, console=quiet())
    (other / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(UserError, match="does not merge into"):
        publish(other, tmp_path / "out", merged=True, console=quiet())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "trained"]


def test_a_secret_of_the_servers_stops_it(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "prove_same", lambda found, copy, prompts: [{"reply": "the pin is open-sesame"}])
    entry = {"command": "shop", "env": {"PIN": "open-sesame"}}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"shop": entry}}))
    with pytest.raises(UserError, match=r"examples.json: holds a secret of the server 'shop': <secret>; nothing was"):
        publish(trained, servers=tmp_path / "mcp.json", console=quiet())
    assert not trained.with_name("trained-publish").exists()
    publish(trained, console=quiet())


def test_a_folder_that_is_not_ours_is_not_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(UserError, match="was not written by `rise publish`"):
        publish(trained, tmp_path / "thesis", console=quiet())
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model.safetensors", "no .safetensors; other formats can carry code"),
        ("tokenizer_config.json", "no tokenizer_config.json"),
        ("chat_template.jinja", "no chat template"),
        ("config.json", "expected a run with an ablation.json, or the folder of a model"),
    ],
)
def test_an_incomplete_model_is_refused(trained: Path, gone: str, message: str) -> None:
    (trained / gone).unlink()
    with pytest.raises(UserError, match=message):
        publish(trained, console=quiet())
    assert sorted(path.name for path in trained.parent.iterdir()) == ["trained"]
