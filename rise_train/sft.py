"""Supervised fine-tuning on verified trajectories: the first stage (RISE, section 3.4).

    accelerate launch -m rise_train.sft --config recipes/tiny/sft/config_full.yaml \
        --dataset_name runs/demo/dataset --output_dir runs/demo/models/sft

    accelerate launch -m rise_train.sft --config recipes/tiny/sft/config_lora.yaml --learning_rate 1e-3

A recipe holds TRL's own field names (SFTConfig, ModelConfig) and those of `recipe.DataArguments`. Loss is on the
assistant's tokens only. Killed and started again, the same command goes on from its last checkpoint; finished, it does
nothing.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rise_train.publishing.push_to_hub import pushing

if TYPE_CHECKING:
    from rise_train.runs.manifest import Run


@pushing
def main(data_args: Any, training_args: Any, model_args: Any) -> Path:
    """Check the data, train, and leave model, tokenizer and manifest in `output_dir`; returns the manifest's path."""
    from rise_train.runs.stage import run_stage

    return run_stage("sft", _train, data_args, training_args, model_args)


def _train(run: "Run", data_args: Any, training_args: Any, model_args: Any) -> Path:
    from transformers import PrinterCallback
    from trl import SFTTrainer

    from rise_train.models.fingerprint import probe_rows
    from rise_train.models.loading import load_policy, load_tokenizer, score_only_targets
    from rise_train.models.qlora import settle_adapter
    from rise_train.models.sharding import placed
    from rise_train.packing.shared_prefix import share, unshared
    from rise_train.rows.batches import arrange, table
    from rise_train.rows.check import check_rows, check_validation
    from rise_train.runs.manifest import finish, inherit
    from rise_train.runs.processes import read_environment, refuse_rounded_weights
    from rise_train.runs.training_log import callbacks, settle_wandb

    settle_wandb(training_args)
    tokenizer = load_tokenizer(model_args, training_args)
    inherit(run, tokenizer)
    report = check_rows("sft", tokenizer, data_args, training_args)
    print(f"sft: {report.line()}", flush=True)
    if data_args.train_tokens is not None:
        training_args.num_train_epochs = round(data_args.train_tokens / report.tokens, 3)

    # The checked ids themselves are trained on, so TRL neither renders, masks nor cuts anything after the proof.
    shared = data_args.shared_prefix
    if shared and (why := unshared(model_args, training_args)):
        print(f"sft: row by row ({why})", flush=True)
        shared = False
    rows = table(report)
    rows = rows.select(arrange(report.lengths, training_args, rows["input_ids"] if shared else None))
    unseen = check_validation("sft", tokenizer, data_args, training_args)
    training_args.assistant_only_loss = False
    score_only_targets()
    model, peft_config = load_policy(model_args, training_args)
    progress, *others = callbacks("sft", run.folder, data_args)
    trainer = SFTTrainer(
        model=model,
        args=training_args,
        train_dataset=rows,
        eval_dataset=table(unseen) if unseen else None,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=[progress, *others],
    )
    trainer.remove_callback(PrinterCallback)
    settle_adapter(trainer.model, model_args.model_name_or_path, model_args)
    refuse_rounded_weights(trainer.model, read_environment(os.environ), training_args)
    with placed(trainer):
        progress.tokens = tokens = share(trainer, rows) if shared else report.tokens
    trainer.train(resume_from_checkpoint=run.checkpoint())
    trainer.save_model(training_args.output_dir)

    compute = {"trained_tokens": round(tokens * trainer.state.epoch), "reference_tokens": 0}
    return finish(run, trainer, report.summary(), probe_rows(report.encoded), compute)


def run_cli(argv: list[str]) -> int:
    """The command: a mistake of the user's gives one sentence and status 2."""
    from rise_train.runs.stage import run_command

    return run_command("sft", main, argv)


if __name__ == "__main__":
    sys.exit(run_cli(sys.argv[1:]))
