"""Supervised fine-tuning on verified trajectories: the first stage (RISE, section 3.4).

    accelerate launch -m rise_train.sft --config recipes/tiny/sft/config_full.yaml \
        --dataset_name runs/demo/dataset --output_dir runs/demo/models/sft

    accelerate launch -m rise_train.sft --config recipes/tiny/sft/config_lora.yaml --learning_rate 1e-3

A recipe holds TRL's own field names (SFTConfig, ModelConfig) and those of `config.DataArguments`. Loss is on the
assistant's tokens only. Killed and started again, the same command goes on from its last checkpoint; finished, it does
nothing.
"""

import sys
from pathlib import Path
from typing import Any

from synthesis.errors import UserError


def main(data_args: Any, training_args: Any, model_args: Any) -> Path:
    """Check the data, train, and leave model, tokenizer and manifest in `output_dir`; returns the manifest's path."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    from eval.policies.memory import keep_freed_memory
    from rise_train.models.loading import load_policy, load_tokenizer, score_only_targets
    from rise_train.models.qlora import settle_adapter
    from rise_train.models.sharding import placed
    from rise_train.models.threads import ThreadsCallback
    from rise_train.packing.shared_prefix import share, unshared
    from rise_train.rows.batches import arranged
    from rise_train.rows.check import check_rows
    from rise_train.runs import manifest
    from rise_train.runs.recipe import settings
    from rise_train.runs.training_log import ProgressCallback, quiet_libraries, settle_wandb

    quiet_libraries()
    keep_freed_memory()
    run = manifest.open_run("sft", settings(data_args, training_args, model_args), data_args, model_args, training_args)
    if run.finished:
        print(f"sft: {run.folder} is finished already; nothing to do")
        return run.folder / manifest.MANIFEST

    settle_wandb(training_args)
    tokenizer = load_tokenizer(model_args, training_args)
    manifest.inherit(run, tokenizer)
    report = check_rows("sft", tokenizer, data_args, training_args)
    print(f"sft: {report.line()}", flush=True)
    if data_args.train_tokens is not None:
        training_args.num_train_epochs = round(data_args.train_tokens / report.tokens, 3)

    # The checked ids themselves are trained on, so TRL neither renders, masks nor cuts anything after the proof.
    shared = data_args.shared_prefix
    if shared and (why := unshared(model_args, training_args)):
        print(f"sft: row by row ({why})", flush=True)
        shared = False
    rows = arranged(report.encoded, training_args, alike=shared)
    training_args.assistant_only_loss = False
    score_only_targets()
    model, peft_config = load_policy(model_args, training_args)
    progress = ProgressCallback("sft", run.folder)
    trainer = SFTTrainer(
        model=model,
        args=training_args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=[progress, ThreadsCallback()],
    )
    trainer.remove_callback(PrinterCallback)
    settle_adapter(trainer.model, model_args.model_name_or_path, model_args)
    with placed(trainer):
        progress.tokens = tokens = share(trainer, rows) if shared else report.tokens
    trainer.train(resume_from_checkpoint=run.checkpoint())
    trainer.save_model(training_args.output_dir)

    compute = {"trained_tokens": round(tokens * trainer.state.epoch), "reference_tokens": 0}
    return manifest.finish(run, trainer, report.summary(), manifest.probe_rows(report.encoded), compute)


def run_cli(argv: list[str]) -> int:
    """Parse and run; a mistake of the user's gives one sentence and status 2."""
    from rise_train.runs.recipe import parse

    try:
        main(*parse("sft", argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(sys.argv[1:]))
