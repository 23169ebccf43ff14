"""Direct preference optimisation on decision turns: the second stage (RISE, section 3.4, Eq. 5).

    accelerate launch -m rise_train.dpo --config recipes/tiny/dpo/config_full.yaml \
        --model_name_or_path runs/demo/models/sft --dataset_name runs/demo/dataset --output_dir runs/demo/models/sft_dpo

    accelerate launch -m rise_train.dpo --config recipes/tiny/dpo/config_lora.yaml --beta 0.2

Each pair is one assistant turn against the same turn with mutated critical parameters; the history, with its real tool
results, is prompt. The reference is the model that the recipe's `reference` names, by default the one that training
starts from, which is proved before the first step.
"""

import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rise_train.models.reference import Loaded, Reference, choose
from rise_train.publishing.push_to_hub import pushing
from rise_train.rows.batches import arrange, pair_lengths, pair_table, table
from rise_train.rows.check import CheckReport

if TYPE_CHECKING:
    from rise_train.runs.manifest import Run


@pushing
def main(data_args: Any, training_args: Any, model_args: Any) -> Path:
    """Check the pairs, prove the reference, train, and leave model and manifest; returns the manifest's path."""
    from rise_train.runs.stage import run_stage

    reference = choose(data_args.reference, model_args, training_args)
    return run_stage("dpo", partial(_train, reference), data_args, training_args, model_args)


def _train(reference: Reference, run: "Run", data_args: Any, training_args: Any, model_args: Any) -> Path:
    from rise_train.models.fingerprint import group_probe_rows
    from rise_train.models.loading import load_tokenizer
    from rise_train.models.reference import MERGED, prove
    from rise_train.models.sharding import placed
    from rise_train.rows.check import check_rows, check_validation
    from rise_train.runs.manifest import finish, inherit
    from rise_train.runs.processes import read_environment, refuse_rounded_weights
    from rise_train.runs.training_log import settle_wandb

    settle_wandb(training_args)
    tokenizer = load_tokenizer(model_args, training_args)
    inherit(run, tokenizer)
    report = check_rows("dpo", tokenizer, data_args, training_args)
    print(f"dpo: {report.line()}", flush=True)
    unseen = check_validation("dpo", tokenizer, data_args, training_args)

    trainer, tokens = build_trainer(tokenizer, report, reference, data_args, training_args, model_args, unseen)
    refuse_rounded_weights(trainer.model, read_environment(os.environ), training_args)
    with placed(trainer):
        proof = prove(trainer, reference, report.groups, model_args)
    for line in proof.lines:
        print(f"dpo: {line}", flush=True)
    trainer.train(resume_from_checkpoint=run.checkpoint())
    trainer.save_model(training_args.output_dir)
    # TRL saves the reference's adapter too: nobody should load it.
    shutil.rmtree(run.folder / "ref", ignore_errors=True)
    if not model_args.use_peft:
        shutil.rmtree(run.folder / MERGED, ignore_errors=True)  # the result stands alone

    tokens = round(tokens * trainer.state.epoch)
    compute = {"trained_tokens": tokens, "reference_tokens": tokens}
    return finish(run, trainer, report.summary(), group_probe_rows(report.groups), compute, reference=proof.facts)


def build_trainer(
    tokenizer: Any,
    report: CheckReport,
    reference: Reference,
    data_args: Any,
    training_args: Any,
    model_args: Any,
    unseen: CheckReport | None = None,
) -> tuple[Any, int]:
    """A trainer over the checked token ids with the chosen reference, and the tokens that one epoch computes.

    TRL renders, masks and cuts nothing after the proof. With `grouped` a group's prompt is computed once for all its
    pairs, which is first compared with the pairs themselves; a model that this cannot serve takes the stock path.
    `unseen` is what is validated on.
    """
    from transformers import PrinterCallback

    from rise_train.models.loading import score_only_targets
    from rise_train.models.qlora import settle_adapter
    from rise_train.models.reference import load, merge
    from rise_train.packing.losses import refuse_weight
    from rise_train.runs.training_log import callbacks

    score_only_targets()
    if reference.name == "merged":
        print(f"dpo: {merge(reference, report.groups, tokenizer, model_args, training_args)}", flush=True)
    loaded = load(reference, tokenizer, model_args, training_args)
    why = "grouped: false" if not data_args.grouped else _unserved(loaded, model_args)
    refuse_weight(data_args.shared_weight, why, training_args.ld_alpha)
    form = _pairs(report, training_args) if why else _groups(report, training_args)
    trainer = form.trainer(
        **loaded._asdict(),
        args=training_args,
        train_dataset=form.rows,
        eval_dataset=(pair_table(unseen) if why else table(unseen)) if unseen else None,
        data_collator=None if why else _collator(tokenizer, data_args, model_args),
        processing_class=tokenizer,
        callbacks=callbacks("dpo", Path(training_args.output_dir), data_args, form.tokens),
    )
    trainer.remove_callback(PrinterCallback)
    settle_adapter(trainer.model, reference.start, model_args)
    if why:
        print(f"dpo: pair by pair ({why}), {form.tokens:,} tokens an epoch", flush=True)
    else:
        from rise_train.models.sharding import placed
        from rise_train.packing.grouped_dpo import self_check

        with placed(trainer):
            gap = self_check(trainer, vars(report.groups[report.lengths.index(min(report.lengths))]))
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
    tokens: int


def _unserved(loaded: Loaded, model_args: Any) -> str:
    """Why policy or reference cannot compute packed groups; empty where both can."""
    from transformers import AutoConfig

    from rise_train.packing.attention import unserved

    attention = model_args.attn_implementation or "sdpa"
    models = [model for model in (loaded.model, loaded.ref_model) if model is not None]
    configs = [AutoConfig.from_pretrained(model) if isinstance(model, str) else model.config for model in models]
    return next(filter(None, (unserved(config, attention) for config in configs)), "")


def _pairs(report: CheckReport, training_args: Any) -> Form:
    """Each pair a row, for the stock trainer."""
    from trl import DPOTrainer

    class EncodedDPOTrainer(DPOTrainer):  # type: ignore[misc]  # trl carries no types
        """Stock DPO, except that the rows come as token ids: TRL 1.16 has no way to be handed them."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    order = arrange(pair_lengths(report), training_args)
    return Form(EncodedDPOTrainer, pair_table(report).select(order), report.tokens)


def _groups(report: CheckReport, training_args: Any) -> Form:
    """Each group a row, for the grouped trainer."""
    from rise_train.packing.grouped_dpo import GroupedDPOTrainer
    from rise_train.packing.trie import packed_lengths

    lengths = packed_lengths(report.groups)
    return Form(GroupedDPOTrainer, table(report).select(arrange(lengths, training_args)), sum(lengths))


def _collator(tokenizer: Any, data_args: Any, model_args: Any) -> Any:
    from rise_train.packing.grouped_dpo import GroupCollator

    one_row = model_args.attn_implementation == "flex_attention"
    return GroupCollator(tokenizer.pad_token_id, one_row, data_args.shared_weight)


def run_cli(argv: list[str]) -> int:
    """The command: a mistake of the user's gives one sentence and status 2."""
    from rise_train.runs.stage import run_command

    return run_command("dpo", main, argv)


if __name__ == "__main__":
    sys.exit(run_cli(sys.argv[1:]))
