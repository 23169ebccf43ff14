"""`rise publish`: what is copied or merged, what is refused, and that the copy is proved."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import rise_train.publishing.publish as module
from rise_train.models.fetching import CARD
from rise_train.publishing import clean_load
from rise_train.publishing import same_replies as trial
from rise_train.publishing.model_files import Source, copy_model, merge_model
from rise_train.publishing.publish import publish
from rise_train.publishing.same_replies import Proof, prove_same, trial_prompts
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


@pytest.mark.usefixtures("same_process")
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
    with pytest.raises(UserError, match="broken: the copy does not load in a clean process: "):
        prove_same(Source(trained), broken, trial_prompts(None)[:1])
    with pytest.raises(UserError, match="broken: does not load: "):
        prove_same(Source(broken), trained, trial_prompts(None)[:1])


def test_an_adapter_on_a_local_base_needs_its_id(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adapter_config.json: base_model_name_or_path is a folder .* --base-id"):
        publish(adapter, tmp_path / "out", console=quiet())
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("same_process")
def test_a_base_that_rise_model_wrote_has_its_id_in_its_card(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder, base = tmp_path / "lora", tmp_path / "base"
    shutil.copytree(adapter, folder)
    shutil.copytree(tiny_model, base)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(base)}))
    card = CARD.format(model="NAME/BASE", weights="of 4 bits")
    (base / "README.md").write_text(card.replace("weights: of 4 bits\n", ""))  # as trainers write: another model's id
    with pytest.raises(UserError, match="give --base-id"):
        publish(folder, tmp_path / "out", console=quiet())
    (base / "README.md").write_text(card)
    target = publish(folder, tmp_path / "out", console=quiet())
    assert json.loads((target / "adapter_config.json").read_text())["base_model_name_or_path"] == "NAME/BASE"
    assert "The base was NAME/BASE of 4 bits;" in (target / "README.md").read_text()


@pytest.mark.usefixtures("same_process")
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


@pytest.fixture
def on_bfloat16(adapter: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """The adapter, on the small model in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    folder, base = tmp_path / "lora", tmp_path / "base"
    shutil.copytree(adapter, folder)
    AutoModelForCausalLM.from_pretrained(tiny_model).to(torch.bfloat16).save_pretrained(base)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(base)}))
    return folder


@pytest.mark.usefixtures("same_process")
def test_a_merged_model_has_the_type_of_its_base_and_each_sum_is_rounded_once(
    on_bfloat16: Path, tiny_model: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    console = quiet()
    target = publish(on_bfloat16, tmp_path / "out", merged=True, console=console)
    merged, base = (load_file(folder / "model.safetensors") for folder in (target, tmp_path / "base"))
    delta = load_file(on_bfloat16 / "adapter_model.safetensors")
    settings = json.loads((on_bfloat16 / "adapter_config.json").read_text())
    assert {weight.dtype for weight in merged.values()} == {torch.bfloat16}
    for name, weight in base.items():
        path = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{path}.lora_A.weight" in delta:
            product = delta[f"{path}.lora_B.weight"] @ delta[f"{path}.lora_A.weight"]
            weight = (weight.float() + product * settings["lora_alpha"] / settings["r"]).bfloat16()
        assert torch.equal(merged[name], weight), name
    assert "rounded to bfloat16, it finds them as likely within 0.0" in console.file.getvalue()  # type: ignore[attr-defined]
    assert str(tmp_path) not in (target / "config.json").read_text()


def test_another_sum_is_not_taken_for_what_rounding_changes(
    on_bfloat16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter added by half or twice, and the merge that never happened."""
    settings = json.loads((on_bfloat16 / "adapter_config.json").read_text())
    other, shares = tmp_path / "other", {"0": 0.0, "half": 0.5, "twice": 2.0, "whole": 1.0}
    shutil.copytree(on_bfloat16, other)
    for name, share in shares.items():
        scaled = {**settings, "lora_alpha": settings["lora_alpha"] * share}
        (other / "adapter_config.json").write_text(json.dumps(scaled))
        (tmp_path / name).mkdir()
        merge_model(Source(other), tmp_path / name)
    models = [(str(folder), None) for folder in (on_bfloat16, *(tmp_path / name for name in shares))]
    original, *copies = clean_load.answers(models, trial_prompts(None)[:1])
    for name, copied in zip(shares, copies, strict=True):
        monkeypatch.setattr(trial, "_ask", lambda *_, copied=copied: [original, copied])
        if name == "whole":
            assert prove_same(Source(on_bfloat16), tmp_path / name, trial_prompts(None)[:1]).examples
            continue
        with pytest.raises(UserError, match="its weights being rounded to bfloat16; publish the adapter"):
            prove_same(Source(on_bfloat16), tmp_path / name, trial_prompts(None)[:1])


def test_a_merge_holds_one_layer_in_float32(on_bfloat16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from peft import PeftModel
    from peft.tuners.lora.layer import Linear

    models: list[Any] = []
    wide: list[int] = []

    def loaded(*arguments: Any) -> Any:
        models.append(load(*arguments))
        return models[-1]

    def counted(layer: Any, **options: Any) -> None:
        weights = [w for name, w in models[0].named_parameters() if "lora" not in name]
        wide.append(sum(weight.dtype == torch.float32 for weight in weights))
        merge(layer, **options)

    load, merge = PeftModel.from_pretrained, Linear.merge
    monkeypatch.setattr(PeftModel, "from_pretrained", loaded)
    monkeypatch.setattr(Linear, "merge", counted)
    (tmp_path / "out").mkdir()
    merge_model(Source(on_bfloat16), tmp_path / "out")
    assert wide[: len(wide) // 2] == [1] * 4  # two layers, q and v; then PEFT asks each layer again, which is merged
    assert not any(w.dtype == torch.float32 for w in models[0].get_base_model().parameters())


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_the_proof_holds_one_model_at_a_time_in_its_own_type(
    on_bfloat16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A model that were only freed by the garbage collector could still be there when the next one is loaded."""
    import gc
    import weakref

    import torch
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    shutil.copyfile(on_bfloat16 / "tokenizer.json", base / "tokenizer.json")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(on_bfloat16 / name, base / name)
    alive: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        assert [model for model in alive if model() is not None] == []
        model = load(*arguments, **options)
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
        alive.append(weakref.ref(model))
        return model

    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", counted)
    folder = base if kind == "full" else on_bfloat16
    gc.collect()
    gc.disable()
    try:
        first, second = clean_load.answers([(str(folder), None)] * 2, trial_prompts(None)[:1])
    finally:
        gc.enable()
    assert first == second
    assert len(alive) == 2
    assert bool(first[0]["bare"]) == (kind == "adapter")


def test_a_merge_that_did_not_happen_is_noticed_by_how_likely_the_replies_are(
    adapter: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = trial_prompts(None)[:1]
    with_adapter, without = clean_load.answers([(str(adapter), None), (str(tiny_model), None)], prompts)
    lucky = [{**without[0], "ids": with_adapter[0]["ids"]}]
    monkeypatch.setattr(trial, "_ask", lambda found, copy, prompts: [with_adapter, lucky])
    with pytest.raises(UserError, match="gives other replies than"):
        prove_same(Source(adapter), tiny_model, prompts)
    monkeypatch.setattr(trial, "_ask", lambda found, copy, prompts: [with_adapter, with_adapter])
    assert prove_same(Source(adapter), tiny_model, prompts).examples[0]["reply_ids"] == with_adapter[0]["ids"]


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
    monkeypatch.setattr(module, "prove_same", lambda *_: Proof([{"reply": "the pin is open-sesame"}], ""))
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
