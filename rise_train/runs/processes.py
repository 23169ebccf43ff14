"""How a training is spread over processes: read from an accelerate file or from the launched process's environment.

Some combinations of a recipe and a launcher load, run, and train something else or save nothing. They are refused here
with the reason, before a model is loaded.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from eval.policies.adapters import base_of
from rise_train.models.skeleton import read_config
from rise_train.runs.yaml_file import read_mapping
from synthesis.errors import UserError

Kind = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]
TYPES: dict[str, Kind] = {"NO": "single", "MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp2"}
ZERO: dict[str, Kind] = {"0": "ddp", "1": "zero1", "2": "zero2", "3": "zero3"}


@dataclass(frozen=True)
class Launch:
    """How the work is shared."""

    kind: Kind = "single"
    processes: int = 1
    machines: int = 1
    offload_optimiser: bool = False
    offload_weights: bool = False
    saves_model: bool = True
    """Whether the finished model is put together from its shards and saved."""
    loads_once: bool = False
    """FSDP's `cpu_ram_efficient_loading`: only the first process reads the weights."""
    source: str = "the launcher"


def read_accelerate(path: Path) -> Launch:
    """The launch that an accelerate configuration file describes. Raises `UserError` for one that is not known here."""
    fields = read_mapping(path)
    kind = fields.get("distributed_type", "NO")
    kind = "NO" if kind is False else kind  # YAML reads a bare NO as false
    deepspeed, fsdp = fields.get("deepspeed_config") or {}, fields.get("fsdp_config") or {}
    for name in ("num_processes", "num_machines"):
        if not isinstance(fields.get(name, 1), int):
            raise UserError(f"{path}: field `{name}`: expected a whole number, found {fields[name]!r}")
    launch = Launch(processes=fields.get("num_processes", 1), machines=fields.get("num_machines", 1), source=str(path))
    if kind == "DEEPSPEED":
        stage, saves = deepspeed.get("zero_stage", 2), deepspeed.get("zero3_save_16bit_model", False)
        if "deepspeed_config_file" in deepspeed:
            stage, saves = _read_deepspeed(path, Path(deepspeed["deepspeed_config_file"]))
        if str(stage) not in ZERO:
            raise UserError(f"{path}: DeepSpeed's ZeRO stage: expected 0, 1, 2 or 3, found {stage!r}")
        return replace(
            launch,
            kind=ZERO[str(stage)],
            saves_model=str(stage) != "3" or bool(saves),
            offload_optimiser=deepspeed.get("offload_optimizer_device", "none") != "none",
            offload_weights=deepspeed.get("offload_param_device", "none") != "none",
        )
    if kind not in TYPES or (kind == "FSDP" and fsdp.get("fsdp_version", 1) != 2):
        raise UserError(f"{path}: field `distributed_type`: expected NO, MULTI_GPU, DEEPSPEED or FSDP of version 2")
    return replace(
        launch,
        kind=TYPES[kind],
        saves_model=kind != "FSDP" or fsdp.get("fsdp_state_dict_type") == "FULL_STATE_DICT",
        offload_optimiser=bool(fsdp.get("fsdp_offload_params", False)),
        offload_weights=bool(fsdp.get("fsdp_offload_params", False)),
        loads_once=bool(fsdp.get("fsdp_cpu_ram_efficient_loading", kind == "FSDP")),
    )


def _read_deepspeed(path: Path, file: Path) -> tuple[Any, Any]:
    """ZeRO's stage, and whether the model is put together for saving, from the file that `path` names."""
    try:
        inner = json.loads(file.read_text())["zero_optimization"]
        return inner["stage"], inner.get("stage3_gather_16bit_weights_on_model_save", False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: field `deepspeed_config_file`: expected DeepSpeed's JSON with zero_optimization.stage in {file} "
            f"({type(error).__name__}: {error})"
        ) from error


def read_environment(environment: Mapping[str, str]) -> Launch:
    """The launch that this process is part of, by the variables that accelerate and torchrun set."""

    def on(name: str) -> bool:
        return environment.get(name, "false").lower() == "true"

    processes = int(environment.get("WORLD_SIZE", "1"))
    if on("ACCELERATE_USE_DEEPSPEED"):
        stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
        return Launch(
            kind=ZERO[stage],
            processes=processes,
            saves_model=stage != "3" or on("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"),
        )
    if on("ACCELERATE_USE_FSDP"):
        return Launch(
            kind="fsdp2",
            processes=processes,
            saves_model=environment.get("FSDP_STATE_DICT_TYPE") == "FULL_STATE_DICT",
            loads_once=on("FSDP_CPU_RAM_EFFICIENT_LOADING"),
        )
    return Launch(kind="ddp" if processes > 1 else "single", processes=processes)


def refuse(launch: Launch, training_args: Any, model_args: Any, on_cpu: bool) -> None:
    """Raise `UserError` for a recipe that this launch cannot train.

    Args:
        on_cpu: whether the processes have no accelerator.
    """
    from trl import DPOConfig

    if launch.kind == "fsdp2" and on_cpu:
        raise UserError(
            f"{launch.source}: FSDP on CPUs: accelerate shards nothing there and would train plain copies; use ddp.yaml"
        )
    if not launch.saves_model:
        field = "fsdp_state_dict_type: FULL_STATE_DICT" if launch.kind == "fsdp2" else "zero3_save_16bit_model: true"
        raise UserError(f"{launch.source}: the finished model would not be saved from its shards; set {field}")
    if launch.loads_once and launch.processes > 1:
        raise UserError(
            f"{launch.source}: with fsdp_cpu_ram_efficient_loading only the first process has weights before training, "
            "so that no reference can be proved, and a second model stays empty; set it to false"
        )
    early = isinstance(training_args, DPOConfig) and training_args.precompute_ref_log_probs
    if launch.kind == "fsdp2" and early and model_args.use_peft:
        raise UserError(
            "precompute_ref_log_probs: TRL computes the reference before FSDP has placed the model on its device; "
            "leave it out, for an adapter needs no second model anyway"
        )


def refuse_lost_steps(launch: Launch, training_args: Any, model_args: Any) -> None:
    """Raise `UserError` where all weights would train in 16 bits with no float32 copy of them.

    bfloat16 has eight bits of precision, so that a step below about 1/512 of a weight rounds to nothing: at the
    learning rates of these recipes nearly all of them. ZeRO keeps a float32 copy, and FSDP with mixed precision.
    """
    if model_args.use_peft or _keeps_copy(launch, training_args):
        return
    dtype = model_args.dtype
    if dtype in (None, "auto"):
        dtype = str(read_config(base_of(model_args.model_name_or_path), model_args.model_revision).dtype)
    if dtype.removeprefix("torch.") in ("bfloat16", "float16"):
        raise UserError(
            f"dtype: {model_args.dtype}: all weights would train without a float32 copy, and nearly every step would "
            "round to nothing; set dtype: float32 with bf16: true, or launch it with ZeRO or FSDP"
        )


def refuse_rounded_weights(model: Any, launch: Launch, training_args: Any) -> None:
    """The same of a loaded model, whose weights say what a recipe may not: `dtype: auto`, `lora_modules_to_save`."""
    import torch

    if _keeps_copy(launch, training_args):
        return
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.dtype in (torch.bfloat16, torch.float16):
            raise UserError(
                f"dtype: {name} would train in {str(weight.dtype).removeprefix('torch.')} without a float32 copy, and "
                "nearly every step would round to nothing; set dtype: float32 with bf16: true"
            )


def _keeps_copy(launch: Launch, training_args: Any) -> bool:
    """Whether the launcher keeps a float32 copy of the weights that train."""
    mixed = bool(training_args.bf16 or training_args.fp16)
    return launch.kind.startswith("zero") or (launch.kind == "fsdp2" and mixed)


def command(stage: str, argv: list[str], launch: Launch, config_file: Path | None) -> list[str]:
    """The command that trains `stage` with recipe and overrides `argv` over several processes.

    accelerate cannot start several processes on one machine of CPUs without MPI; torchrun can.
    """
    import torch

    module = ["-m", f"rise_train.{stage}", *argv]
    if launch.kind == "ddp" and not torch.accelerator.is_available():
        start = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(launch.processes)]
        return [sys.executable, "-m", *start, *module]
    start = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(launch.processes)]
    if config_file is None:
        start += ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    else:
        start += ["--config_file", str(config_file)]
    return [*start, *module]
