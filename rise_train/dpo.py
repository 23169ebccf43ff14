"""Direct preference optimisation on decision turns: the second stage (RISE, section 3.4, Eq. 5).

    accelerate launch -m rise_train.dpo --config recipes/tiny/dpo/config_full.yaml \
        --model_name_or_path runs/demo/models/sft --dataset_name runs/demo/dataset --output_dir runs/demo/models/sft_dpo

    accelerate launch -m rise_train.dpo --config recipes/tiny/dpo/config_lora.yaml --beta 0.2

Each pair is one assistant turn against the same turn with mutated critical parameters; the history, with its real tool
results, is prompt. The reference is the model that training starts from, which is proved before the first step.
"""

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rise_train.check import CheckReport
from synthesis.errors import UserError


def main(data_args: Any, training_args: Any, model_args: Any) -> Path:
    """Check the pairs, prove the reference, train, and leave model and manifest; returns the manifest's path."""
    from rise_train import manifest
    from rise_train.check import check_preference, select_pairs
    from rise_train.config import settings
    from rise_train.models import load_rows, load_tokenizer
    from rise_train.progress import quiet_libraries

    quiet_libraries()
    run = manifest.open_run("dpo", settings(data_args, training_args, model_args), data_args, model_args, training_args)
    if run.finished:
        print(f"dpo: {run.folder} is finished already; nothing to do")
        return run.folder / manifest.MANIFEST

    tokenizer = load_tokenizer(model_args, training_args)
    groups = load_rows(data_args, "dpo")
    groups = select_pairs(
        groups, data_args.pairs_per_group, data_args.max_pairs, training_args.seed, whole=data_args.grouped
    )
    report = check_preference(tokenizer, groups, training_args.max_length, data_args.on_overlong)
    print(f"dpo: {report.line()}", flush=True)

    trainer, tokens = build_trainer(tokenizer, report, training_args, model_args, run.folder, data_args)
    print(f"dpo: {prove_reference(trainer, report, model_args)}", flush=True)
    trainer.train(resume_from_checkpoint=run.checkpoint())
    trainer.save_model(training_args.output_dir)
    shutil.rmtree(
        run.folder / "ref", ignore_errors=True
    )  # TRL saves the reference's adapter too; nobody should load it

    tokens = round(tokens * trainer.state.epoch)
    compute = {"trained_tokens": tokens, "reference_tokens": tokens}
    return manifest.finish(run, trainer, report.summary(), manifest.pair_probe_rows(report.pairs), compute)


def build_trainer(
    tokenizer: Any, report: CheckReport, training_args: Any, model_args: Any, folder: Path, data_args: Any
) -> tuple[Any, int]:
    """A trainer over the checked token ids, and the tokens that one epoch computes.

    TRL renders, masks and cuts nothing after the proof. With `grouped` a group's prompt is computed once for all its
    pairs, which is first compared with the pairs themselves; a model that this cannot serve takes the stock path.
    """
    from transformers import PrinterCallback

    from rise_train.losses import refuse_weight
    from rise_train.models import load_policy, score_only_targets
    from rise_train.progress import ProgressCallback

    score_only_targets()
    model, peft_config = load_policy(model_args, training_args)
    why = "grouped: false" if not data_args.grouped else _unserved(model, model_args)
    refuse_weight(data_args.shared_weight, why, training_args.ld_alpha)
    form = (
        _pairs(report, training_args)
        if why
        else _groups(report, training_args, tokenizer, model_args, data_args.shared_weight)
    )
    trainer = form.trainer(
        model=model,
        args=training_args,
        train_dataset=form.rows,
        data_collator=form.collator,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=[ProgressCallback("dpo", folder)],
    )
    trainer.remove_callback(PrinterCallback)
    if why:
        print(f"dpo: pair by pair ({why}), {form.tokens:,} tokens an epoch", flush=True)
    else:
        from rise_train.grouped_dpo import self_check

        gap = self_check(trainer, min(form.rows, key=lambda row: len(row["prompt_ids"])))
        saved = report.tokens / form.tokens
        print(
            f"dpo: {len(report.groups)} groups share their prompts: {form.tokens:,} tokens an epoch, {saved:.1f} times "
            f"fewer than pair by pair (log-probabilities of a group both ways within {gap:.1g})",
            flush=True,
        )
    return trainer, form.tokens


class Form(NamedTuple):
    """The data as one kind of trainer wants it; `tokens` is what an epoch computes."""

    trainer: Any
    rows: Any
    collator: Any
    tokens: int


def _unserved(model: Any, model_args: Any) -> str:
    """Why the model, a path or a loaded one, cannot train on packed groups; empty where it can."""
    from transformers import AutoConfig

    from rise_train.grouped_dpo import unserved

    config = model.config if not isinstance(model, str) else AutoConfig.from_pretrained(model)
    return unserved(config, model_args.attn_implementation or "sdpa")


def _pairs(report: CheckReport, training_args: Any) -> Form:
    """Each pair a row, for the stock trainer."""
    from datasets import Dataset
    from trl import DPOTrainer

    from rise_train.batches import arrange

    class EncodedDPOTrainer(DPOTrainer):  # type: ignore[misc]  # trl carries no types
        """Stock DPO, except that the rows come as token ids: TRL 1.16 has no way to be handed them."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    pairs = report.pairs
    order = arrange([pair.length for pair in pairs], training_args)
    return Form(EncodedDPOTrainer, Dataset.from_list([asdict(pairs[i]) for i in order]), None, report.tokens)


def _groups(report: CheckReport, training_args: Any, tokenizer: Any, model_args: Any, weight: float) -> Form:
    """Each group a row, for the grouped trainer."""
    from datasets import Dataset

    from rise_train.batches import arrange
    from rise_train.grouped_dpo import GroupCollator, GroupedDPOTrainer
    from rise_train.trie import pack

    lengths = [len(pack(g.prompt_ids, [g.chosen_ids, *g.rejected_ids])) for g in report.groups]
    rows = Dataset.from_list([asdict(report.groups[i]) for i in arrange(lengths, training_args)])
    one_row = model_args.attn_implementation == "flex_attention"
    return Form(GroupedDPOTrainer, rows, GroupCollator(tokenizer.pad_token_id, one_row, weight), sum(lengths))


def prove_reference(trainer: Any, report: CheckReport, model_args: Any) -> str:
    """Prove by log-probabilities that the reference is the model in `model_name_or_path`; returns a line that says so.

    Two guards: the policy starts exactly at the reference (else the first margins are not 0), and both equal the
    fingerprint that the SFT stage stored with its model (else both could be the base model). Raises `UserError`.
    """
    from rise_train.manifest import pair_probe_rows, read_probe
    from rise_train.models import log_probs, reference_log_probs, same_log_probs

    exact = model_args.dtype in (None, "auto", "float32")
    stored = read_probe(model_args.model_name_or_path)
    rows = stored[0] if stored else pair_probe_rows(report.pairs)
    reference = reference_log_probs(trainer, rows)
    policy = log_probs(trainer.accelerator.unwrap_model(trainer.model), rows)
    if not same_log_probs(reference, policy, exact_dtype=exact):
        raise UserError(f"the reference is not the model that training starts from: log-probs {reference} and {policy}")
    if stored is None:
        return (
            f"reference = policy at step 0 ({len(rows)} rows; {model_args.model_name_or_path} carries no fingerprint)"
        )
    if not same_log_probs(reference, stored[1], exact_dtype=exact):
        raise UserError(
            f"the reference is not the model of {model_args.model_name_or_path}: log-probs {reference} where its "
            f"training left {stored[1]}"
        )
    return f"reference = {model_args.model_name_or_path} (log-probs of {len(rows)} rows equal those its training left)"


def run_cli(argv: list[str]) -> int:
    """Parse and run; a mistake of the user's gives one sentence and status 2."""
    from rise_train.config import parse

    try:
        main(*parse("dpo", argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(sys.argv[1:]))
