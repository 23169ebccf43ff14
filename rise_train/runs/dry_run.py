"""`rise train`: check a recipe, say what it will take, and start it on one process or many."""

import os
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rise_train.models.skeleton import Shape, look
from rise_train.rows.check import CheckReport
from rise_train.runs.estimate import GIB, KINDS, Load, Memory, activations, memory, operations
from rise_train.runs.processes import Launch, command, read_accelerate, refuse, refuse_lost_steps
from rise_train.runs.recipe import Stage
from synthesis.errors import UserError


@dataclass(frozen=True)
class Work:
    """What the data asks for. A row is what a batch counts: a conversation, a pair, or a group of pairs."""

    rows: int
    tokens: int
    """Computed in one epoch by the policy; a packed group's prompt counts once."""
    longest: int
    """Tokens of the longest sequence that a forward pass sees."""
    sequences: int
    """Sequences of one row: two for a pair, one otherwise."""
    checked: str
    """The check's own line of counts."""


def train(
    path: Path,
    overrides: list[str],
    *,
    config_file: Path | None,
    processes: int | None,
    tflops: float | None,
    dry: bool,
) -> int:
    """Check the recipe at `path`, print the plan, and train unless `dry`; returns the exit status.

    A mistake in the recipe, in the data or in the choice of launcher ends here, before any process is started: what an
    accelerate launcher reports of its processes is status 1 and a traceback, whatever they said.

    Args:
        overrides: TRL's fields as `--name value`.
        config_file: accelerate configuration, None for one process, or for plain DDP with `processes`.
        processes: instead of the configuration's `num_processes`.
        tflops: what one device computes a second, in 10^12 operations; without it the time is left out.

    Raises:
        UserError: the recipe, the data or the combination is at fault.
    """
    from importlib import import_module

    from rise_train.runs.recipe import parse, stage_of

    stage = stage_of(path)
    argv = ["--config", str(path), *overrides]
    data_args, training_args, model_args = parse(stage, argv)
    launch = read_accelerate(config_file) if config_file else Launch()
    if processes is not None:
        launch = replace(launch, processes=processes)
    if launch.kind == "single" and launch.processes > 1:
        launch = replace(launch, kind="ddp")
    refuse(launch, training_args, model_args, on_cpu=training_args.use_cpu)
    shape = look(model_args)
    work = survey(stage, data_args, training_args, model_args)
    show(stage, shape, work, launch, (data_args, training_args, model_args), tflops)
    if dry:
        try:
            refuse_lost_steps(launch, training_args, model_args)
        except UserError as error:
            print(f"note: this launch would be refused: {error}")
        return 0
    refuse_lost_steps(launch, training_args, model_args)
    if launch.kind == "single":
        return int(import_module(f"rise_train.{stage}").run_cli(argv))
    sys.stdout.flush()
    start = command(stage, argv, launch, config_file)
    os.execv(start[0], start)  # nothing of this process, such as its hold on a GPU, should outlast it


def survey(stage: Stage, data_args: Any, training_args: Any, model_args: Any) -> Work:
    """Rows and tokens of the recipe's data, encoded and proved as training does it. Raises `UserError`."""
    from rise_train.models.loading import load_tokenizer
    from rise_train.rows.check import check_rows

    report = check_rows(stage, load_tokenizer(model_args, training_args), data_args, training_args)
    if stage == "dpo":
        return _pairs(report, grouped=data_args.grouped)
    tokens = _shared(report, training_args, model_args) if data_args.shared_prefix else report.tokens
    return Work(report.rows, tokens, report.longest, 1, report.line())


def _shared(report: CheckReport, training_args: Any, model_args: Any) -> int:
    """Tokens of an epoch of SFT whose batches share what their rows begin with."""
    from eval.policies.adapters import base_of
    from rise_train.models.skeleton import read_config
    from rise_train.packing.shared_prefix import SharedPrefixCollator, batched, survey_batches, unshared
    from rise_train.rows.batches import arrange, table

    if unshared(model_args, training_args):
        return report.tokens
    config = read_config(base_of(model_args.model_name_or_path), model_args.model_revision).get_text_config()
    rows = table(report)
    rows = rows.select(arrange(report.lengths, training_args, rows["input_ids"]))
    batches = batched(rows, training_args.per_device_train_batch_size)
    return survey_batches(SharedPrefixCollator(0, config.hidden_size), batches).tokens


def _pairs(report: CheckReport, grouped: bool) -> Work:
    from rise_train.packing.trie import packed_lengths

    if not grouped:
        return Work(report.rows, report.tokens, report.longest, 2, report.line())
    lengths = packed_lengths(report.groups)
    return Work(len(lengths), sum(lengths), max(lengths), 1, report.line())


def steps(work: Work, launch: Launch, training_args: Any) -> int:
    """Optimiser steps of the whole training, as the Trainer counts them."""
    if training_args.max_steps > 0:
        return int(training_args.max_steps)
    batches = -(-work.rows // (training_args.per_device_train_batch_size * launch.processes))
    updates = max(1, -(-batches // training_args.gradient_accumulation_steps))
    return -int(-training_args.num_train_epochs * updates // 1)


def held_second(stage: Stage, data_args: Any, training_args: Any, model_args: Any) -> str:
    """What DPO holds as reference: a second model, a copy of the adapter, or nothing more (docs/reference.md)."""
    from rise_train.models.reference import choose

    if stage == "sft" or training_args.precompute_ref_log_probs:
        return "none"
    reference = choose(data_args.reference, model_args, training_args)
    if reference.name == "sft_adapter":
        return "adapter"
    inside = reference.name in ("merged", "base") or reference.is_start
    return "none" if model_args.use_peft and inside else "model"


def load_of(work: Work, training_args: Any) -> Load:
    """The largest micro-batch of one process."""
    return Load(
        sequences=work.sequences * training_args.per_device_train_batch_size,
        tokens=work.longest,
        checkpointing=training_args.gradient_checkpointing,
        autocast=bool(training_args.bf16 or training_args.fp16),
    )


def cost(stage: Stage, shape: Shape, work: Work, launch: Launch, training_args: Any) -> float:
    """Operations of the whole training, the reference's forward passes included (one epoch's, if precomputed)."""
    tokens = work.tokens * training_args.num_train_epochs
    if training_args.max_steps > 0:
        rows = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps * launch.processes
        tokens = work.tokens * training_args.max_steps * rows / work.rows
    seen = 0.0
    if stage == "dpo":
        seen = work.tokens if training_args.precompute_ref_log_probs else tokens
    return operations(
        shape,
        tokens,
        work.tokens / (work.rows * work.sequences),
        reference=seen,
        checkpointing=training_args.gradient_checkpointing,
    )


def show(
    stage: Stage, shape: Shape, work: Work, launch: Launch, arguments: tuple[Any, Any, Any], tflops: float | None
) -> None:
    """Print the plan: parameters, data, steps, operations, and memory under each way of sharing the work."""
    _, training_args, model_args = arguments
    batch, accumulation = training_args.per_device_train_batch_size, training_args.gradient_accumulation_steps
    needed = cost(stage, shape, work, launch, training_args)
    hours = "with --tflops N, what a device really does, also hours"
    if tflops is not None:
        hours = f"{needed / (tflops * 1e12 * launch.processes) / 3600:.2f} h at {tflops:g} TFLOP/s"
    share = 100 * shape.trainable / shape.parameters
    print(f"{stage}: {work.checked}")
    print(f"parameters   {shape.parameters:,}, of which {shape.trainable:,} train ({share:.2f} %)")
    print(f"data         {work.rows:,} rows, {work.tokens:,} tokens an epoch, longest {work.longest:,}")
    print(
        f"steps        {steps(work, launch, training_args):,}, of {launch.processes} x {batch} x {accumulation} rows "
        "(processes, batch, accumulation)"
    )
    print(f"operations   {needed:.3g}; {hours}", flush=True)
    load, second = load_of(work, training_args), held_second(stage, *arguments)
    held, optimiser = activations(model_args, shape, load), str(training_args.optim)
    ways = _ways(launch, 8 if launch.kind == "single" else launch.processes)
    print_memory([(way, memory(shape, way, held, optimiser, second, load.autocast)) for way in ways])


def _ways(launch: Launch, processes: int) -> list[Launch]:
    """The chosen launch first, then the others with as many processes."""
    others = [Launch()] if launch.kind != "single" else []
    return [launch, *others, *(Launch(kind, processes) for kind in KINDS if kind != launch.kind)]


def print_memory(ways: list[tuple[Launch, Memory]]) -> None:
    """A table of GiB in each process, the chosen launch in the first row."""
    names = [field.name for field in fields(Memory)] + ["total"]
    print("GiB in each process  weights   grads   optim   refer   activ buffers   total")
    for i, (launch, need) in enumerate(ways):
        offload = ", offload" if launch.offload_weights or launch.offload_optimiser else ""
        name = f"{'*' if i == 0 else ' '} {launch.processes} x {launch.kind}{offload}"
        print(f"{name:<20}" + "".join(f"{getattr(need, n) / GIB:>8.2f}" for n in names), flush=True)
