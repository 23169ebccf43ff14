"""DPO's reference is the model that the recipe names, proved by log-probabilities (and refused where it is not)."""

import json
import math
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from handmade import PRECISIONS, ROOT, flags, train

from rise_train.models.fingerprint import ProbeRow, log_probs, probe_rows, read_probe, reference_log_probs, widest_gap
from rise_train.models.loading import load_tokenizer
from rise_train.models.reference import Proof, choose, prove
from rise_train.rows.check import CheckReport, check_preference, check_sft
from rise_train.rows.groups import select_pairs
from rise_train.rows.recipe_rows import read_split
from synthesis.errors import UserError

QUANTISED = {"load_in_4bit": "true", "use_bnb_nested_quant": "true"}


@pytest.fixture(scope="session")
def sft_qlora(tiny_model: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the adapter of a few steps of SFT on `tiny_model` in 4 bits."""
    pytest.importorskip("bitsandbytes")
    return train("sft", "lora", tiny_model, tiny_dataset, tmp_path_factory.mktemp("sft_qlora"), **QUANTISED)


class Built:
    """A DPO trainer as the stage builds it, before its first step."""

    def __init__(self, recipe: str, model: Path, dataset: Path, out: Path, **changes: Any) -> None:
        from rise_train.dpo import build_trainer
        from rise_train.runs.recipe import parse

        config = str(ROOT / "recipes" / "tiny" / "dpo" / f"config_{recipe}.yaml")
        changes = {"loss_type": "sigmoid", "loss_weights": 1.0, **changes}
        arguments = flags("dpo", model, dataset, out, **changes)
        data, training, self.model_args = parse("dpo", ["--config", config, *arguments])
        self.reference = choose(data.reference, self.model_args, training)
        tokenizer = load_tokenizer(self.model_args, training)
        self.report = some_pairs(model, dataset)
        self.trainer, _ = build_trainer(tokenizer, self.report, self.reference, data, training, self.model_args)

    def prove(self) -> list[str]:
        """The lines of the proof."""
        return prove(self.trainer, self.reference, self.report.groups, self.model_args).lines

    def batch(self) -> Any:
        """The first row of the training data as a batch."""
        return self.trainer._prepare_inputs(self.trainer.data_collator([self.trainer.train_dataset[0]]))

    def first_loss(self) -> float:
        """The sigmoid loss before the first step."""
        self.trainer.model.eval()
        return self.trainer.compute_loss(self.trainer.model, self.batch()).item()

    def their_log_probs(self) -> list[float]:
        """What the trainer takes as the reference's log-probabilities of its first row: chosen, then rejected."""
        if self.trainer.precompute_ref_logps:
            row = self.trainer.train_dataset[0]
            sides = [row["ref_chosen_logps"], row["ref_rejected_logps"]]
            return [score for side in sides for score in (side if isinstance(side, list) else [side])]
        model = self.trainer.ref_model or self.trainer.model
        return [float(s) for side in self.trainer.compute_ref_log_probs(model, self.batch()) for s in side]

    def first_rows(self) -> list[ProbeRow]:
        """The same answers as rows."""
        row = self.trainer.train_dataset[0]
        wrong = row["rejected_ids"] if isinstance(row["rejected_ids"][0], list) else [row["rejected_ids"]]
        return [_answer(row["prompt_ids"], ids) for ids in [row["chosen_ids"]] * len(wrong) + wrong]


def sums(model: Any, rows: list[ProbeRow]) -> list[float]:
    """The log-probability of each row's target."""
    return list(map(sum, log_probs(model, rows)))


def _answer(prompt: list[int], ids: list[int]) -> ProbeRow:
    return ProbeRow("", [*prompt, *ids], [-100] * len(prompt) + [*ids])


def on_its_own(path: Path, base: Path | None = None, quantised: bool = False, dtype: str = "float32") -> Any:
    """A model from disk by Transformers and PEFT alone; `base` if it is an adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    extra = {"quantization_config": settings} if quantised else {}
    model = AutoModelForCausalLM.from_pretrained(base or path, dtype=getattr(torch, dtype), **extra)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # with it, evaluation on such a CPU rounds scales to bfloat16
            module.support_avx512bf16_for_cpu = False
    return PeftModel.from_pretrained(model, path) if base else model


@cache
def ten_rows(model: Path, dataset: Path) -> list[ProbeRow]:
    """Ten held-out conversations, so that the stored probe is not what is compared."""
    from transformers import AutoTokenizer

    rows = read_split(dataset, "sft", "test") + read_split(dataset, "sft", "train")
    encoded = check_sft(AutoTokenizer.from_pretrained(model), rows[:10], None).encoded
    return [ProbeRow(str(i), e.input_ids, e.labels) for i, e in enumerate(encoded)]


@cache
def some_pairs(model: Path, dataset: Path) -> CheckReport:
    """Six pairs of four groups, checked."""
    from transformers import AutoTokenizer

    groups = select_pairs(read_split(dataset, "preference", "train"), 2, 6, 0)
    return check_preference(AutoTokenizer.from_pretrained(model), groups, None)


class Cell(NamedTuple):
    """A line of the table in docs/reference.md."""

    recipe: str
    """`lora` or `full`; what is trained."""
    start: str
    """Fixture of what the policy starts from."""
    field: str | None
    """The recipe's `reference`; a path as the name of its fixture."""
    model: str
    """Fixture of the model that this names, or `merged`."""
    base: str | None
    """Fixture of its base, where it is an adapter."""
    starts_there: bool


CELLS = {
    "lora": Cell("lora", "sft_lora", None, "sft_lora", "tiny_model", True),
    "lora-merged": Cell("lora", "sft_lora", "merged", "merged", None, True),
    "lora-base": Cell("lora", "sft_lora", "base", "tiny_model", None, False),
    "lora-path": Cell("lora", "sft_lora", "sft_full", "sft_full", None, False),
    "lora-on-full": Cell("lora", "sft_full", None, "sft_full", None, True),
    "lora-on-full-path": Cell("lora", "sft_full", "sft_lora", "sft_lora", "tiny_model", False),
    "full": Cell("full", "sft_full", None, "sft_full", None, True),
    "full-merged": Cell("full", "sft_lora", "merged", "merged", None, True),
    "full-path": Cell("full", "sft_full", "sft_lora", "sft_lora", "tiny_model", False),
    "qlora": Cell("qlora", "sft_qlora", None, "sft_qlora", "tiny_model", True),
    "qlora-merged": Cell("qlora", "sft_qlora", "merged", "merged", None, True),
    "qlora-base": Cell("qlora", "sft_qlora", "base", "tiny_model", None, False),
    "qlora-path": Cell("qlora", "sft_qlora", "sft_full", "sft_full", None, False),
    "qlora-on-full": Cell("qlora", "sft_full", None, "sft_full", None, True),
    "qlora-on-full-path": Cell("qlora", "sft_full", "sft_lora", "sft_lora", "tiny_model", False),
}


# Every line grouped, in every precision; how a reference is kept also pair by pair and computed beforehand.
FORMS = [(name, True, False, numbers) for name in CELLS for numbers in PRECISIONS]
FORMS += [(n, False, False, p) for n in ("lora", "full", "lora-base", "lora-path", "qlora") for p in PRECISIONS]
FORMS += [(name, True, True, "float32") for name in ("lora", "full", "lora-base", "qlora-path")]
FORMS += [(name, False, True, "float32") for name in ("full", "lora-base")]
FORMS += [(name, True, True, "bfloat16") for name in ("lora", "full")]


@pytest.mark.parametrize(("name", "grouped", "precompute", "numbers"), FORMS)
def test_the_reference_is_the_model_that_the_recipe_names(
    name: str,
    grouped: bool,
    precompute: bool,
    numbers: str,
    tiny_dataset: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    cell = CELLS[name]
    changes = {"grouped": grouped, "precompute_ref_log_probs": precompute, **PRECISIONS[numbers]}
    is_path = cell.field in ("sft_full", "sft_lora")
    if cell.field:
        changes["reference"] = request.getfixturevalue(cell.field) if is_path else cell.field
    quantised = cell.recipe == "qlora"
    start = request.getfixturevalue(cell.start)
    recipe = "full" if cell.recipe == "full" else "lora"
    built = Built(recipe, start, tiny_dataset, tmp_path, **changes, **(QUANTISED if quantised else {}))
    lines = built.prove()

    named = tmp_path / "merged" if cell.model == "merged" else request.getfixturevalue(cell.model)
    base = request.getfixturevalue(cell.base) if cell.base else None
    model = on_its_own(named, base, quantised, PRECISIONS[numbers]["dtype"])
    rows = ten_rows(start, tiny_dataset)
    assert widest_gap(reference_log_probs(built.trainer, rows), log_probs(model, rows)) < 1e-4
    # Half a digit of bfloat16 is all that training itself may be off by, over a whole answer.
    rounding = 1e-4 if numbers == "float32" else 5e-3
    assert built.their_log_probs() == pytest.approx(sums(model, built.first_rows()), rel=rounding)
    at_ln_2 = built.first_loss() == pytest.approx(math.log(2), abs=1e-5 if numbers == "float32" else 1e-3)
    assert at_ln_2 or not cell.starts_there
    if numbers == "float32":
        assert at_ln_2 == cell.starts_there
    assert str(named) in lines[0]
    second = is_path or (cell.recipe == "full" and not precompute)
    assert (built.trainer.ref_model is not None) == second, "what is kept in memory"


def test_a_merged_reference_is_the_adapter_on_its_base(
    sft_lora: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    rows = ten_rows(sft_lora, tiny_dataset)
    Built("full", sft_lora, tiny_dataset, tmp_path, reference="merged")
    expected = sums(on_its_own(sft_lora, tiny_model), rows)
    assert sums(on_its_own(tmp_path / "merged"), rows) == pytest.approx(expected, rel=1e-4)
    assert sums(on_its_own(tiny_model), rows) != pytest.approx(expected, rel=1e-4)


def refusal(model: Path, recipe: str, reference: str | None, **training: Any) -> str:
    """What `choose` says against it; without torch."""
    settings = {"sync_ref_model": False, "output_dir": "out", "deepspeed_plugin": None, **training}
    model_args = SimpleNamespace(model_name_or_path=str(model), use_peft=recipe != "full")
    with pytest.raises(UserError) as error:
        choose(reference, model_args, SimpleNamespace(**settings))
    return str(error.value)


def test_what_cannot_be_meant_is_refused_with_the_reason(sft_lora: Path, sft_full: Path) -> None:
    for recipe in ("lora", "full"):
        assert "needs an adapter" in refusal(sft_full, recipe, "sft_adapter")
        assert "needs an adapter" in refusal(sft_full, recipe, "merged")
        assert "name the folder of the base" in refusal(sft_full, recipe, "base")
        assert "expected sft_adapter, merged, base, or" in refusal(sft_lora, recipe, "sft_adaptor")
    for reference in (None, "sft_adapter", "base", str(sft_full)):
        assert "set use_peft: true" in refusal(sft_lora, "full", reference)
    assert "sync_ref_model" in refusal(sft_lora, "lora", None, sync_ref_model=True)
    zero3 = SimpleNamespace(zero_stage=3)
    assert "ZeRO-3" in refusal(sft_lora, "lora", "merged", deepspeed_plugin=zero3)


def test_a_folder_is_the_same_model_however_its_path_is_written(sft_lora: Path, sft_full: Path) -> None:
    training_args = SimpleNamespace(sync_ref_model=False, output_dir="out", deepspeed_plugin=None)
    for start, name in ((sft_lora, "sft_adapter"), (sft_full, "model")):
        model_args = SimpleNamespace(model_name_or_path=str(start), use_peft=True)
        chosen = choose(f"{start.parent}/./{start.name}/", model_args, training_args)
        assert (chosen.name, chosen.is_start) == (name, True)
        assert chosen == choose(None, model_args, training_args)


@pytest.mark.parametrize("name", ["base", "merged", "sft_adapter"])
def test_a_model_folder_may_be_called_like_a_kind_of_reference(
    name: str, sft_full: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sft_full, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    built = Built("full", Path(name), tiny_dataset, tmp_path / "out")
    assert built.prove()[0] == f"reference = {name}"
    assert built.first_loss() == pytest.approx(math.log(2), abs=1e-5)


def test_an_adapter_goes_on_with_its_own_rank(sft_lora: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    for reference in ("sft_adapter", "base"):
        with pytest.raises(UserError, match=r"lora_r: the adapter .* has rank 32"):
            Built("lora", sft_lora, tiny_dataset, tmp_path, reference=reference, lora_r=8)


def test_another_vocabulary_is_refused(sft_full: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(sft_full, other)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"<tool_call>"', '"<call>"'))
    with pytest.raises(UserError, match="another vocabulary"):
        Built("full", sft_full, tiny_dataset, tmp_path / "out", reference=other)


@pytest.mark.parametrize("what", ["policy", "both"])
@pytest.mark.parametrize("numbers", PRECISIONS)
def test_a_wrong_reference_stops(what: str, numbers: str, sft_lora: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    import torch

    built = Built("lora", sft_lora, tiny_dataset, tmp_path, **PRECISIONS[numbers])
    assert "equal those that the training of" in built.prove()[-1]
    # The base model as reference (what TRL gives for a base with a fresh adapter), or as reference and policy.
    names = (".ref.",) if what == "policy" else (".ref.", ".default.")
    with torch.no_grad():
        for name, weight in built.trainer.model.named_parameters():
            if "lora_B" in name and any(part in name for part in names):
                weight.zero_()
    with pytest.raises(UserError, match="starts from" if what == "policy" else "its training left|where its"):
        built.prove()


def test_a_base_reference_that_is_the_policy_stops(sft_lora: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    import torch

    built = Built("lora", sft_lora, tiny_dataset, tmp_path, reference="base")
    with torch.no_grad():
        for name, weight in built.trainer.model.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    with pytest.raises(UserError, match="reference: base: its log-probs are those of the policy"):
        built.prove()


def run_on(
    folder: Path, stage: str, start: Path, dataset: Path, capsys: pytest.CaptureFixture[str], **changes: Any
) -> tuple[dict[str, Any], str]:
    """Train for three steps, and again from the checkpoint in a copy; both must agree. Returns manifest and output."""
    changes["max_steps"] = 3
    train(stage, "lora", start, dataset, folder, **changes)
    said = capsys.readouterr().out
    manifest = json.loads((folder / "rise_manifest.json").read_text())
    broken = folder.with_name(folder.name + "_broken")
    broken.mkdir()
    shutil.copy(folder / "rise_run.json", broken)
    shutil.copytree(folder / "checkpoint-2", broken / "checkpoint-2")
    train(stage, "lora", start, dataset, broken, **changes)
    assert "going on from step 2" in capsys.readouterr().out
    again = json.loads((broken / "rise_manifest.json").read_text())
    assert again["probe"] == pytest.approx(manifest["probe"], rel=1e-6)
    assert again["final_loss"] == pytest.approx(manifest["final_loss"], rel=1e-5)
    return manifest, said


def test_merged_then_lora_loads_in_plain_peft(
    sft_lora: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    manifest, said = run_on(out, "dpo", sft_lora, tiny_dataset, capsys, reference="merged")
    base = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(out / "merged") == manifest["reference"]["model"]
    assert f"reference = merged, the adapter and its base as one model, {base}" in said
    scores = manifest["reference"]["log_probs"]
    assert list(scores["policy"].values()) == pytest.approx(list(scores["reference"].values()), rel=1e-4)
    assert " ".join(f"{s:.4f}" for s in scores["reference"].values()) in said
    assert list(manifest["probe"].values()) == pytest.approx(finished_log_probs(out, out / "merged"), rel=1e-4)


def finished_log_probs(adapter: Path, base: Path, quantised: bool = False) -> list[float]:
    """The rows of a finished training's fingerprint, scored by the adapter on `base`, loaded by PEFT alone."""
    probe = read_probe(str(adapter))
    assert probe
    return sums(on_its_own(adapter, base, quantised), probe.rows)


def test_qlora_stages_resume_and_load_on_the_whole_base(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    sft, dpo = tmp_path / "sft", tmp_path / "dpo"
    run_on(sft, "sft", tiny_model, tiny_dataset, capsys, **QUANTISED)
    manifest, said = run_on(dpo, "dpo", sft, tiny_dataset, capsys, **QUANTISED)
    assert f"the policy's log-probs equal those that the training of {sft} left" in said
    assert manifest["reference"]["name"] == "sft_adapter"
    assert list(manifest["probe"].values()) == pytest.approx(finished_log_probs(dpo, tiny_model, True), rel=1e-4)
    # On the whole base it is a slightly different model, and far from the base itself.
    whole = finished_log_probs(dpo, tiny_model)
    assert whole == pytest.approx(list(manifest["probe"].values()), rel=0.05)
    assert whole != pytest.approx(list(manifest["probe"].values()), rel=1e-4)


def test_gradients_pass_through_a_4_bit_base_that_was_probed(
    sft_qlora: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    """bitsandbytes on a CPU with AVX512-BF16 loses them after a pass in evaluation mode."""
    import torch
    from peft import PeftModel

    def gradients(model: Any) -> Any:
        row = built.first_rows()[0]
        ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
        model.train()
        model(input_ids=ids, labels=labels).loss.backward()
        found = [p.grad for n, p in sorted(model.named_parameters()) if "lora_A.default" in n]
        return torch.cat([gradient.flatten() for gradient in found])

    built = Built("lora", sft_qlora, tiny_dataset, tmp_path, **QUANTISED)
    built.prove()
    whole = on_its_own(tiny_model, quantised=True).dequantize()
    same = PeftModel.from_pretrained(whole, sft_qlora, is_trainable=True)
    torch.testing.assert_close(gradients(built.trainer.model), gradients(same), rtol=1e-3, atol=1e-6)


def test_an_8_bit_base_is_the_same_for_policy_and_reference(
    sft_lora: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    built = Built("lora", sft_lora, tiny_dataset, tmp_path, load_in_8bit="true")
    assert f"{sft_lora} was trained unquantised, and is over an 8-bit base now" in built.prove()[-1]
    settings = BitsAndBytesConfig(load_in_8bit=True)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, quantization_config=settings)
    rows = ten_rows(sft_lora, tiny_dataset)
    expected = sums(PeftModel.from_pretrained(base, sft_lora), rows)
    assert list(map(sum, reference_log_probs(built.trainer, rows))) == pytest.approx(expected, rel=1e-4)
    assert built.first_loss() == pytest.approx(math.log(2), abs=1e-5)


def test_small_steps_move_a_qlora_adapter(
    sft_qlora: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded to bfloat16, as TRL leaves it, it stands still at a rate that is usual for DPO."""
    import torch
    from safetensors.torch import load_file

    def moved(folder: Path) -> float:
        train("dpo", "lora", sft_qlora, tiny_dataset, folder, **QUANTISED, learning_rate=1e-6)
        before, after = (load_file(f / "adapter_model.safetensors") for f in (sft_qlora, folder))
        return torch.cat([(before[n].to(after[n].dtype) != after[n]).float().flatten() for n in before]).mean().item()

    exact = moved(tmp_path / "exact")
    monkeypatch.setattr("rise_train.models.qlora.settle_adapter", lambda *_: None)
    monkeypatch.setattr("rise_train.runs.processes.refuse_rounded_weights", lambda *_: None)
    monkeypatch.setattr("rise_train.models.reference.prove", lambda *_: Proof([], {}))
    rounded = moved(tmp_path / "rounded")
    print(f"share of an adapter's weights that a short DPO at 1e-6 moves: float32 {exact:.3f}, bfloat16 {rounded:.3f}")
    assert exact > 0.9
    assert rounded < 0.1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_peft": "false"}, "quantised weights cannot be trained"),
        ({"dtype": "auto"}, "bfloat16 or float32"),
        ({"load_in_4bit": "false", "load_in_8bit": "true", "fsdp": "full_shard"}, "FSDP spreads weights"),
    ],
)
def test_quantisation_that_cannot_work_is_refused(
    changes: dict[str, str], reason: str, tiny_model: Path, tmp_path: Path
) -> None:
    from rise_train.models.qlora import quantisation
    from rise_train.runs.recipe import parse

    config = str(ROOT / "recipes" / "tiny" / "sft" / "config_lora.yaml")
    arguments = flags("sft", tiny_model, tmp_path, tmp_path, **{"load_in_4bit": "true", **changes})
    _, training, model = parse("sft", ["--config", config, *arguments])
    with pytest.raises(UserError, match=reason):
        quantisation(model, training)


def test_without_bitsandbytes_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from rise_train.models.qlora import quantisation

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model = SimpleNamespace(load_in_4bit=True, load_in_8bit=False, use_peft=True)
    with pytest.raises(UserError, match=r"load_in_4bit needs bitsandbytes: pip install 'rise-train\[gpu\]'"):
        quantisation(model, SimpleNamespace())


def test_probe_is_stored_with_the_model(sft_full: Path, tiny_dataset: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = read_split(tiny_dataset, "sft", "train")[:8]
    expected = probe_rows(check_sft(AutoTokenizer.from_pretrained(sft_full), rows, None).encoded)
    stored = json.loads((sft_full / "rise_manifest.json").read_text())["probe"]
    assert len(stored) == 8
    scores = sums(AutoModelForCausalLM.from_pretrained(sft_full), expected)
    assert list(stored.values()) == pytest.approx(scores, rel=1e-6)


def test_scoring_only_targets_changes_no_loss_and_no_gradient(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer import utils

    from rise_train.models.loading import score_only_targets

    def loss_and_gradient() -> tuple[float, Any]:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        utils.add_fused_lm_head(model)
        output = model(input_ids=ids, labels=labels, fused_lm_head=True)
        output.loss.backward()
        return output.loss.item(), model.model.embed_tokens.weight.grad

    ids = torch.arange(40).reshape(2, 20) + 300
    labels = ids.clone()
    labels[:, :13] = -100
    before = utils._use_triton
    try:
        utils._use_triton = lambda device: False  # TRL's own choice on a CPU
        loss, gradient = loss_and_gradient()
        score_only_targets()
        assert utils._use_triton(torch.device("cpu"))
        compact_loss, compact_gradient = loss_and_gradient()
    finally:
        utils._use_triton = before
    assert compact_loss == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(compact_gradient, gradient, rtol=1e-5, atol=1e-8)


def test_a_merge_of_another_adapter_is_not_taken_over(
    sft_lora: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    """A folder is given back with what the dead training left in it."""
    other = train("sft", "lora", tiny_model, tiny_dataset, tmp_path / "other", seed=3, learning_rate=0.05)
    Built("lora", sft_lora, tiny_dataset, tmp_path / "out", reference="merged")
    built = Built("lora", other, tiny_dataset, tmp_path / "out", reference="merged")
    rows = ten_rows(sft_lora, tiny_dataset)
    named = on_its_own(other, tiny_model)
    assert widest_gap(reference_log_probs(built.trainer, rows), log_probs(named, rows)) < 1e-4
    coarse = Built("lora", other, tiny_dataset, tmp_path / "out", reference="merged", dtype="bfloat16")
    assert str(next(coarse.trainer.model.get_base_model().parameters()).dtype) == "torch.bfloat16"
