"""The reference of DPO: which model it is, how it comes to stand beside the policy, and the proof of it.

Three ways in which TRL keeps a reference are used, and each is chosen here, never fallen into: a frozen copy of the
adapter (`ref`), the model without its adapter, and a second model. `docs/reference.md` has the table.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from eval.policies.adapters import base_of, is_adapter
from rise_train.models.fingerprint import (
    MANIFEST,
    Scores,
    group_probe_rows,
    hash_model,
    is_model_of,
    is_same,
    log_probs,
    mean_gap,
    read_probe,
    reference_log_probs,
    take_probe,
    widest_gap,
    write_probe,
)  # fmt: skip
from rise_train.models.loading import is_no_model
from rise_train.models.precision import EXACT
from rise_train.models.qlora import spread_by
from synthesis.errors import UserError
from synthesis.json_file import write_json

NOTHING = 1e-6
"""Nats: an adapter that moves no token's log-probability by so much changes nothing."""
LOST = 0.25
"""Share of what an adapter changes that merging it may lose, as publishing has it."""
MERGED = "merged"
"""Folder, inside the training's own, of the adapter merged into its base; a new adapter names it as its base."""


@dataclass(frozen=True)
class Reference:
    """Which model is the reference, and where the policy starts."""

    name: str
    """`sft_adapter`, `merged`, `base`, or `model` for one that is named by its folder or Hub id, whatever that is."""
    model: str
    """Folder or Hub id of the reference."""
    start: str
    """Folder or Hub id of what the policy starts from; for `merged` it comes to be before training."""

    @property
    def is_start(self) -> bool:
        """Whether the policy starts at the reference, so that the first margins are 0 and the first loss is ln 2."""
        return self.model == self.start

    def sentence(self) -> str:
        """Which model it is, for people."""
        other = f"; the policy starts from {self.start}, so margins are measured against another model"
        return {
            "sft_adapter": f"sft_adapter, a frozen copy of the adapter {self.model} on {base_of(self.model)}",
            "merged": f"merged, the adapter and its base as one model, {self.model}",
            "base": f"base, {self.model} without the adapter{other}",
        }.get(self.name, self.model + ("" if self.is_start else other))


def choose(value: str | None, model_args: Any, training_args: Any) -> Reference:
    """What the recipe's field `reference` means for its model; without it, the model that training starts from.

    Raises `UserError` where it can mean nothing, or not with this kind of training.
    """
    start, trains_adapter = model_args.model_name_or_path, model_args.use_peft
    if value and Path(value).is_dir() and Path(start).is_dir() and Path(value).samefile(start):
        value = None  # the start itself, however its path is written
    if training_args.sync_ref_model and trains_adapter:
        raise UserError("sync_ref_model: an adapter's reference is no model of its own that could follow; leave it out")
    if value not in (None, "sft_adapter", "merged", "base") and is_no_model(value):
        raise UserError(f"reference: expected sft_adapter, merged, base, or a model's folder or Hub id, found {value}")
    if is_adapter(start):
        return _choose_for_adapter(value, start, trains_adapter, training_args)
    if value in ("sft_adapter", "merged"):
        raise UserError(
            f"reference: {value} needs an adapter, and {start} is a full model: leave reference out, and it is that one"
        )
    if value == "base":
        raise UserError(
            f"reference: base is the model under an adapter, and {start} is a full model; name the folder of the base"
        )
    return Reference("model", value or start, start)


def _choose_for_adapter(value: str | None, start: str, trains_adapter: bool, training_args: Any) -> Reference:
    if value == "merged":
        if spread_by(training_args) == "ZeRO-3":
            raise UserError(
                "reference: merged: ZeRO-3 spreads the weights while they load, so nothing can be merged; merge before "
                "(`rise publish --merged`) and start from that folder"
            )
        merged = str(Path(training_args.output_dir) / MERGED)
        return Reference("merged", merged, merged)
    if not trains_adapter:
        raise UserError(
            f"model_name_or_path: {start} is a LoRA adapter; set use_peft: true to go on with it, or reference: merged "
            "to train all weights of adapter and base as one"
        )
    if value == "base":
        return Reference("base", base_of(start), start)
    if value in (None, "sft_adapter"):
        return Reference("sft_adapter", start, start)
    assert value is not None
    return Reference("model", value, start)


class Loaded(NamedTuple):
    """What a DPOTrainer is given; each is None where TRL is to make it itself."""

    model: Any
    peft_config: Any
    ref_model: Any


def load(reference: Reference, tokenizer: Any, model_args: Any, training_args: Any) -> Loaded:
    """Policy and reference for a trainer; `qlora.settle_adapter` must follow when the trainer stands.

    `sft_adapter`: a PeftModel, of whose adapter TRL freezes a copy. `merged`, and a full model: the folder, which TRL
    loads twice, or gives a new adapter, without which it is the reference. `base`: a new adapter too; it gets its
    weights afterwards, so that also a precomputed reference is the base. Another model: loaded as it is, quantised as
    the policy is.
    """
    from peft import PeftConfig

    from rise_train.models.loading import init_kwargs, load_frozen, load_policy, require_rank

    if reference.name == "merged":
        return Loaded(*load_policy(replace(model_args, model_name_or_path=reference.model), training_args), None)
    if reference.name == "base":
        require_rank(reference.start, model_args)
        model, _ = load_policy(replace(model_args, model_name_or_path=reference.model), training_args)
        peft_config = PeftConfig.from_pretrained(reference.start)
        peft_config.inference_mode = False
        return Loaded(model, peft_config, None)
    other = None
    if not reference.is_start:
        _require_same_tokens(reference, tokenizer)
        other = load_frozen(reference.model, init_kwargs(model_args, training_args))
    return Loaded(*load_policy(model_args, training_args), other)


def _require_same_tokens(reference: Reference, tokenizer: Any) -> None:
    from rise_train.models.loading import read_tokenizer

    if read_tokenizer(reference.model).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"reference: {reference.model} has another vocabulary than {reference.start}: the same token ids would be "
            "other text to it"
        )


def merge(reference: Reference, groups: Sequence[Any], tokenizer: Any, model_args: Any, training_args: Any) -> str:
    """Write the adapter merged into its base, in the recipe's `dtype`, with tokenizer, manifest and fingerprint.

    What is merged must be what the adapter's training left, and the merge must be that model: its tokens may be off by
    `LOST` of what the adapter changes, root mean square, which rounding to 16 bits comes to for a small adapter. Done
    once, by one process: the folder is there whole or not at all.

    Returns:
        A line on both. A difference is a `UserError`.
    """
    from rise_train.models.loading import init_kwargs, load_adapter

    folder, adapter = Path(reference.model), model_args.model_name_or_path
    facts = {"stage": "merge", "parent": adapter, "base": base_of(adapter), "settings": {"dtype": model_args.dtype}}
    facts |= {"parent_hash": hash_model(adapter)}
    line = f"{folder} holds the merged model already"
    if training_args.process_index == 0 and not _is_merge(folder, facts):
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)  # of a training that this folder was meant for before
        whole = replace(model_args, load_in_4bit=False, load_in_8bit=False)  # 4-bit weights take up no adapter
        model = load_adapter(adapter, init_kwargs(whole, training_args))
        stored = read_probe(adapter)
        rows = stored.rows if stored else group_probe_rows(groups)
        apart = log_probs(model, rows)
        line = _prove_fingerprint("model to be merged", adapter, model, apart, whole)
        with model.disable_adapter():
            bare = log_probs(model, rows)
        merged = model.merge_and_unload()
        probe = take_probe(merged, rows)
        line += "; " + _prove_merge(mean_gap(probe.scores, apart), mean_gap(bare, apart), whole.dtype)
        merged.save_pretrained(part)
        tokenizer.save_pretrained(part)
        write_probe(part, probe)
        write_json(part / MANIFEST, facts)
        part.rename(folder)
    training_args.distributed_state.wait_for_everyone()
    return line


def _is_merge(folder: Path, facts: dict[str, Any]) -> bool:
    """Whether the folder holds just this merge."""
    path = folder / MANIFEST
    return path.is_file() and json.loads(path.read_text()) == facts


def _prove_merge(off: float, moved: float, dtype: str) -> str:
    """A line on how near a merge is to the adapter on its base; `UserError` where it is not that model."""
    if off > EXACT + LOST * moved:
        raise UserError(
            f"reference: merged: in {dtype} the merge is off by {off:.2g} nats a token, and the adapter changes no "
            f"more than {moved:.2g}: rounding takes it away; set dtype: float32, or reference: sft_adapter"
        )
    return f"merged it is within {off:.1g} nats a token (the adapter changes {moved:.2g})"


class Proof(NamedTuple):
    """What was proved before the first step."""

    lines: list[str]
    """For people."""
    facts: dict[str, Any]
    """For the manifest: which model, and the log-probability of each row under reference and policy."""


def prove(trainer: Any, reference: Reference, groups: Sequence[Any], model_args: Any) -> Proof:
    """Prove by log-probabilities which model the reference is, and where the policy starts.

    Two guards: the policy starts at the reference exactly where it should (else the first margins are not 0, or the
    reference is no other model at all); and a model whose training left a fingerprint has it still (else policy and
    reference could both be the base). Raises `UserError`.
    """

    model = trainer.accelerator.unwrap_model(trainer.model)
    stored = read_probe(reference.start)
    rows = stored.rows if stored else group_probe_rows(groups)
    theirs, ours = reference_log_probs(trainer, rows), log_probs(model, rows)
    if reference.is_start and not is_same(theirs, ours, model):
        raise UserError(
            f"the reference is not the model that training starts from: log-probs {_figures(theirs)} and "
            f"{_figures(ours)}, one token apart by {widest_gap(theirs, ours):.2g}"
        )
    if reference.name == "base" and widest_gap(theirs, ours) < NOTHING:
        raise UserError(
            f"reference: base: its log-probs are those of the policy; it is not the base, or the adapter "
            f"{reference.start} changes nothing"
        )
    lines = [
        f"reference = {reference.sentence()}",
        f"log-probs of {len(rows)} rows, reference: {_figures(theirs)}",
        f"log-probs of {len(rows)} rows, policy:    {_figures(ours)}",
        _prove_fingerprint("policy", reference.start, model, ours, model_args),
    ]
    if not reference.is_start and (own := read_probe(reference.model)):
        scores = reference_log_probs(trainer, own.rows)
        holder = model if trainer.ref_model is None else trainer.accelerator.unwrap_model(trainer.ref_model)
        lines.append(_prove_fingerprint("reference", reference.model, holder, scores, model_args))
    names = [row.id for row in rows]
    sides = {"reference": dict(zip(names, map(sum, theirs), strict=True))}
    sides |= {"policy": dict(zip(names, map(sum, ours), strict=True))}
    return Proof(lines, {"name": reference.name, "model": reference.model, "log_probs": sides})


def preview(reference: Reference, model_args: Any, training_args: Any) -> list[str]:
    """What can be said before there is a trainer: which model it is, and whether it is as its training left it.

    Loads that model, and only where a fingerprint is there to compare with. What will be `merged` is the adapter on its
    base until then. Raises `UserError` where it is another model.
    """
    from rise_train.models.loading import init_kwargs, load_frozen

    folder = model_args.model_name_or_path if reference.name == "merged" else reference.model
    lines = [f"reference = {reference.sentence()}"]
    stored = read_probe(folder)
    if stored is None:
        return [*lines, f"{folder} carries no fingerprint of its training, so the reference is compared with nothing"]
    model = load_frozen(folder, init_kwargs(model_args, training_args))
    return [*lines, _prove_fingerprint("reference", folder, model, log_probs(model, stored.rows), model_args)]


def _figures(scores: Scores) -> str:
    return " ".join(f"{sum(row):.4f}" for row in scores)


def _prove_fingerprint(side: str, folder: str, model: Any, scores: Scores, model_args: Any) -> str:
    """Compare with what the training of `folder` left; a line that says how it came out.

    `scores` are those of the probe's rows under the side that is proved, which `model` computes.
    """
    stored = read_probe(folder)
    if stored is None:
        return f"{folder} carries no fingerprint of its training, so the {side} is compared with nothing else"
    path = Path(folder) / MANIFEST
    settings = json.loads(path.read_text())["settings"] if path.is_file() else {}
    there, here = _quantised(settings), _quantised(vars(model_args))
    if there != here:
        pairs = zip(map(sum, scores), map(sum, stored.scores), strict=True)
        worst = max(abs(a - b) / abs(b) for a, b in pairs)
        return f"{folder} was trained {there}, and is {here} now: the {side}'s log-probs differ by up to {worst:.2%}"
    if not is_model_of(model, scores, stored):
        raise UserError(
            f"the {side} is not the model of {folder}: log-probs {_figures(scores)} where its training left "
            f"{_figures(stored.scores)}"
        )
    return f"the {side}'s log-probs equal those that the training of {folder} left"


def _quantised(settings: dict[str, Any]) -> str:
    """The quantisation that settings (fields of TRL's ModelConfig; left out, the default) stand for."""
    if settings.get("load_in_8bit"):
        return "over an 8-bit base"
    if not settings.get("load_in_4bit"):
        return "unquantised"
    nested = ", nested" if settings.get("use_bnb_nested_quant") else ""
    return f"over a 4-bit base ({settings.get('bnb_4bit_quant_type', 'nf4')}{nested})"
