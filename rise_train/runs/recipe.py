"""Reading a recipe: TrlParser over TRL's own fields, with one sentence instead of a traceback for what is wrong."""

import difflib
import os
import sys
import warnings
from argparse import ArgumentTypeError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rise_train.rows.batches import rows_a_step
from rise_train.runs.processes import read_environment, refuse
from rise_train.runs.validation import settle_validation
from rise_train.runs.yaml_file import read_mapping
from synthesis.errors import UserError

Stage = Literal["sft", "dpo"]


@dataclass
class DataArguments:
    """Where the rows come from, and what becomes of those that do not fit."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Folder with sft/ and preference/, as written by `rise synth` (RUN/dataset)."}
    )
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_eval_split: str | None = field(
        default=None,
        metadata={
            "help": "With eval_strategy: split to validate on; by default `validation` where the dataset has one, else "
            "a tenth of the training split's trajectories, which are then not trained on."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop when the validation loss has not fallen for so many evaluations, and keep the best."},
    )
    on_overlong: str = field(
        default="error",
        metadata={
            "help": "What to do with a row longer than max_length: stop, or leave it out.",
            "choices": ["error", "drop"],
        },
    )
    on_unsound: str = field(
        default="error",
        metadata={
            "help": "What to do with a row that fails a proof of the check: stop, or leave it out.",
            "choices": ["error", "drop"],
        },
    )
    difficulty: str = field(
        default="all",
        metadata={
            "help": "Only requests with a label of difficulty (a correction, two values of a kind), or those without.",
            "choices": ["all", "easy", "hard"],
        },
    )


@dataclass
class RowArguments(DataArguments):
    """How the rows of supervised training are computed."""

    shared_prefix: bool = field(
        default=False,
        metadata={"help": "Batch rows that begin alike (tools, history) and compute what they share once."},
    )
    train_tokens: int | None = field(
        default=None, metadata={"help": "Train for so many tokens, prompts included, instead of num_train_epochs."}
    )


@dataclass
class PairArguments(DataArguments):
    """How many pairs are taken from the preference groups."""

    pairs_per_group: int = field(
        default=4, metadata={"help": "Pairs from one group at most (a group is one chosen turn and its K negatives)."}
    )
    max_pairs: int | None = field(
        default=None,
        metadata={"help": "Pairs in all at most; with `grouped` whole groups, else one of every group first."},
    )
    grouped: bool = field(
        default=True,
        metadata={
            "help": "Compute a group's prompt once for all its pairs; per_device_train_batch_size then counts groups."
        },
    )
    negatives: list[str] | None = field(
        default=None,
        metadata={"help": "Only negatives of these kinds (`distractor`) or verdicts of the tools (`covert`)."},
    )
    shared_weight: float = field(
        default=1.0,
        metadata={"help": "What tokens count that a pair's answers share: 1 is TRL's loss, 0 leaves them out."},
    )
    reference: str | None = field(
        default=None,
        metadata={
            "help": "Reference of DPO: sft_adapter, merged, base, or a model's folder or Hub id; "
            "by default what training starts from."
        },
    )


# Where these differ from TRL's defaults it is for the laptop and for privacy.
DEFAULTS = {
    "report_to": "none",
    "disable_tqdm": True,
    "save_total_limit": 2,
    "dataloader_pin_memory": False,
}


def parse(stage: Stage, argv: list[str]) -> tuple[Any, Any, Any]:
    """(data, training, model) arguments of `stage` from `--config FILE` and command-line overrides.

    Raises `UserError` for a missing or broken file, an unknown field and a value of the wrong type.
    """
    from trl import ModelConfig

    # TRL 1.16 sets `gradient_checkpointing` itself, so nobody could act on this; goes when TRL renames the field.
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated")
    parser = _parser(stage)
    path = _config_path(argv)
    if path:
        fields = read_mapping(path)
        _refuse_unknown(path, fields, _known(parser))
        _refuse_mistyped(path, fields, parser)
    try:
        data, training, model = parser.parse_args_and_config(args=list(argv))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path or 'command line'}: {_one_line(error)}") from error
    assert isinstance(model, ModelConfig)
    for name in ("model_name_or_path", "dataset_name"):
        if not getattr(model if name.startswith("model") else data, name):
            raise UserError(f"{path or 'command line'}: field `{name}` is missing; give it here or as --{name}")
    settle_validation(data, training)
    _keep_to_one_gpu(training)
    refuse(
        read_environment(os.environ), training, model, on_cpu=training.distributed_state.distributed_type == "MULTI_CPU"
    )
    return data, training, model


def _keep_to_one_gpu(training_args: Any) -> None:
    """One process trains on one GPU: the Trainer would divide each batch among all that it sees (`DataParallel`)."""
    if training_args.n_gpu > 1:
        print(
            f"one process trains on one GPU, and {training_args.n_gpu} are there; for all of them: rise train RECIPE "
            f"--num_processes {training_args.n_gpu}, or accelerate launch",
            flush=True,
        )
        training_args._n_gpu = 1


def stage_of(path: Path) -> Stage:
    """Which stage a recipe is for: by a field that only one of them knows, else by its folder's name."""
    fields = set(read_mapping(path)) - {"env"}
    known: dict[Stage, set[str]] = {"sft": _known(_parser("sft")), "dpo": _known(_parser("dpo"))}
    fitting: list[Stage] = [stage for stage, names in known.items() if fields <= names]
    if len(fitting) == 1:
        return fitting[0]
    folder: Stage = "dpo" if path.resolve().parent.name == "dpo" else "sft"
    if not fitting:
        _refuse_unknown(path, dict.fromkeys(fields), known[folder])
    return folder


def settings(*arguments: Any) -> dict[str, Any]:
    """What a recipe and the command line really set: every field that differs from its default, for the manifest."""
    return {name: value for part in arguments for name, value in _changed(part).items()}


def identity(data_args: Any, training_args: Any, model_args: Any) -> dict[str, Any]:
    """The settings that decide what a training computes: two runs with equal ones are the same training.

    Where to save, what to show and how to fit into memory are left out. Nor does it matter how a step's rows are
    divided among micro-batches and processes, so their product stands for the three, but for losses of TRL's that are
    means over a micro-batch: DPO's `sft` term, and pairs without `grouped`.
    """
    found = settings(data_args, training_args, model_args)
    ignored = set(_HOW) if training_args.load_best_model_at_end else _HOW | _DECIDES_BEST
    by_micro_batch = "sft" in getattr(training_args, "loss_type", ()) or not getattr(data_args, "grouped", True)
    if not by_micro_batch:
        ignored |= {"per_device_train_batch_size", "gradient_accumulation_steps"}
    held_out = training_args.eval_strategy != "no"  # and these are not trained on
    kept = {name: value for name, value in found.items() if name not in ignored}
    return {**kept, "holds_out_rows": held_out, "rows_a_step": rows_a_step(training_args)}


# Fields that say where things are, not what is computed; no manifest needs them.
_INCIDENTAL = {
    "output_dir", "overwrite_output_dir", "logging_dir", "run_name", "disable_tqdm", "report_to", "log_level",
    "hub_token", "hub_model_id", "push_to_hub", "resume_from_checkpoint", "save_total_limit", "use_cpu", "project",
    "ddp_backend", "dataset_name", "model_name_or_path",
}  # fmt: skip
# Fields that a manifest tells, and that may change between a run and its resumption.
_HOW = {
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_checkpointing",
    "activation_checkpointing_kwargs", "activation_offloading", "torch_empty_cache_steps", "dataset_num_proc",
    "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
    "logging_steps", "logging_strategy", "logging_first_step", "logging_nan_inf_filter", "log_level_replica",
    "log_on_each_node", "include_num_input_tokens_seen", "save_on_each_node", "hub_strategy",
    "hub_private_repo", "hub_revision", "hub_always_push", "ddp_timeout", "ddp_find_unused_parameters",
    "ddp_bucket_cap_mb", "eval_accumulation_steps", "eval_on_start",
}  # fmt: skip
_DECIDES_BEST = {
    "per_device_eval_batch_size",
    "save_steps",
    "save_strategy",
    "eval_steps",
    "eval_strategy",
    "eval_delay",
}


def _changed(part: Any) -> dict[str, Any]:
    import dataclasses

    changed = {}
    for item in dataclasses.fields(part):
        if not item.init or item.name in _INCIDENTAL or item.name.startswith("_"):
            continue
        value = getattr(part, item.name)
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        if value != default and isinstance(value, str | int | float | bool | list | dict | None):
            changed[item.name] = value
    return changed


def _parser(stage: Stage) -> Any:
    import torch
    from accelerate.utils import parse_flag_from_env
    from trl import DPOConfig, ModelConfig, SFTConfig, TrlParser

    data, training = (RowArguments, SFTConfig) if stage == "sft" else (PairArguments, DPOConfig)
    parser = TrlParser((data, training, ModelConfig), prog=f"python -m rise_train.{stage}")
    on_cpu = not torch.accelerator.is_available()
    # DeepSpeed has CPU processes of its own; told `use_cpu`, accelerate would not even start it.
    own = on_cpu and parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")
    place = {"use_cpu": False, "ddp_backend": "gloo"} if own else {"use_cpu": on_cpu}
    if not _has_bfloat16():
        place["bf16"] = False
    parser.set_defaults_with_config(**DEFAULTS, **place, assistant_only_loss=True)

    def fail(message: str) -> None:
        raise UserError(f"{' '.join(sys.argv[1:3]) or 'command line'}: {message}")

    parser.error = fail
    return parser


def _has_bfloat16() -> bool:
    """Whether the device multiplies faster in bfloat16, so that recipes that leave `bf16` open get it."""
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None or device.type == "mps":
        return False
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def _known(parser: Any) -> set[str]:
    return {action.dest for action in parser._actions} - {"help"}


def _config_path(argv: list[str]) -> Path | None:
    if "--config" not in argv:
        return None
    index = argv.index("--config") + 1
    if index == len(argv):
        raise UserError("--config: expected the path of a YAML recipe after it")
    return Path(argv[index])


def _refuse_unknown(path: Path, fields: dict[str, Any], known: set[str]) -> None:
    for name in sorted(set(map(str, fields)) - known - {"env"}):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else "; TRL's field names are expected"
        raise UserError(f"{path}: unknown field `{name}`{hint}")


def _refuse_mistyped(path: Path, fields: dict[str, Any], parser: Any) -> None:
    """Argparse converts and checks what comes from the command line only; a recipe's values are defaults to it."""
    for action in parser._actions:
        value = fields.get(action.dest)
        if value is None or isinstance(value, dict):
            continue
        if isinstance(value, list) and action.nargs not in ("+", "*"):
            raise UserError(f"{path}: field `{action.dest}`: expected one value, found a list")
        for item in value if isinstance(value, list) else [value]:
            _refuse_value(path, action, item)


def _refuse_value(path: Path, action: Any, item: Any) -> None:
    try:
        converted = action.type(str(item)) if action.type else item
    except (ArgumentTypeError, KeyError, TypeError, ValueError) as error:
        kind = getattr(action.type, "__name__", "another type")
        raise UserError(f"{path}: field `{action.dest}`: expected {kind}, found {item!r}") from error
    if action.choices and converted not in action.choices:
        choices = ", ".join(map(str, action.choices))
        raise UserError(f"{path}: field `{action.dest}`: expected one of {choices}, found {item!r}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
