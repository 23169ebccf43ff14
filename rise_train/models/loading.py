"""Models, adapters and rows as the training stages load them, and the log-probability probe that tells models apart."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.policies.adapters import base_of as base_of
from eval.policies.adapters import is_adapter as is_adapter
from eval.replies import templates
from eval.rollouts.decisions import level
from rise_train.rows.masking import use_training_template
from synthesis.errors import UserError

Row = dict[str, Any]


@dataclass(frozen=True)
class ProbeRow:
    """A fixed row whose log-probability identifies a model: token ids and labels (-100 where without loss)."""

    id: str
    input_ids: list[int]
    labels: list[int]


def load_tokenizer(model_args: Any, training_args: Any) -> Any:
    """The tokenizer with the one chat template that both stages, evaluation and serving use.

    Raises `UserError` when there is none, or its template cannot show tool calls.
    """
    path = model_args.model_name_or_path
    require_model("model_name_or_path", path)
    tokenizer = read_tokenizer(path, model_args.model_revision)
    template = getattr(training_args, "chat_template_path", None)
    if template:
        tokenizer.chat_template = templates.read(template)
        training_args.chat_template_path = None
    eos = getattr(training_args, "eos_token", None)
    if eos:
        tokenizer.eos_token = eos
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if line := use_training_template(tokenizer):
        print(line, flush=True)
    return tokenizer


def read_tokenizer(path: str, revision: str = "main") -> Any:
    """The tokenizer of a folder or Hub id as it is; `UserError` when there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no tokenizer could be loaded ({' '.join(str(error).split())[:200]})") from error


def is_no_model(path: str) -> bool:
    """Whether `path` can be no model: it looks like a folder of this machine, and no config of a model is in it."""
    looks_local = Path(path).exists() or path.startswith((".", "/", "~")) or path.count("/") != 1
    return looks_local and not any((Path(path) / n).is_file() for n in ("config.json", "adapter_config.json"))


def require_model(field: str, path: str) -> None:
    """Raise `UserError`, which names the field, when `path` is a folder and none of a model."""
    if is_no_model(path):
        raise UserError(f"{field}: {path} is no model folder (expected config.json or adapter_config.json)")


def load_policy(model_args: Any, training_args: Any) -> tuple[Any, Any]:
    """(model, peft_config) for a TRL trainer.

    A full model is given as its folder or Hub id, which TRL loads (a quantised one is loaded here); with `use_peft`
    there is a config for a new adapter beside it. An adapter folder becomes a `PeftModel` whose adapter goes on
    training. What TRL would take for something else without a word (an adapter's folder as a model) is refused.
    """
    from trl import get_peft_config

    path = model_args.model_name_or_path
    init = init_kwargs(model_args, training_args)
    if not is_adapter(path) and "quantization_config" not in init:
        training_args.model_init_kwargs = init
        return path, get_peft_config(model_args)
    training_args.model_init_kwargs = None
    if not is_adapter(path):
        return load_model(path, init), get_peft_config(model_args)
    if not model_args.use_peft:
        raise UserError(
            f"model_name_or_path: {path} is a LoRA adapter; set use_peft: true, or merge it into a full model"
        )
    require_rank(path, model_args)
    return load_adapter(path, init), None


def require_rank(path: str, model_args: Any) -> None:
    """Raise `UserError` when the recipe gives another rank than the adapter of folder `path` has and goes on with."""
    rank = json.loads((Path(path) / "adapter_config.json").read_text())["r"]
    if model_args.lora_r != rank:
        raise UserError(
            f"lora_r: the adapter {path} has rank {rank} and goes on with it, but the recipe says {model_args.lora_r}"
        )


def init_kwargs(model_args: Any, training_args: Any) -> dict[str, Any]:
    """How models of this recipe are loaded: keyword arguments of `from_pretrained`."""
    from accelerate.utils import DistributedType

    from rise_train.models.qlora import quantisation

    init: dict[str, Any] = {
        "revision": model_args.model_revision,
        "dtype": model_args.dtype,
        "attn_implementation": model_args.attn_implementation,
    }
    if settings := quantisation(model_args, training_args):
        init["quantization_config"] = settings
    if training_args.distributed_state.distributed_type != DistributedType.NO:
        init["device_map"] = None  # else every process would spread it over all GPUs
    return {**init, **(training_args.model_init_kwargs or {})}


def load_model(path: str, init: dict[str, Any]) -> Any:
    """The full model of a folder or Hub id, loaded as TRL would, with `init` for `from_pretrained`."""
    from trl.trainer.utils import create_model_from_path

    from rise_train.models.qlora import keep_layout

    model = create_model_from_path(path, **init)
    if "quantization_config" in init:
        keep_layout(model)
    return model


def load_adapter(path: str, init: dict[str, Any]) -> Any:
    """A `PeftModel` with the adapter of folder `path` as its trainable `default` adapter."""
    from peft import PeftModel

    base = base_of(path)
    require_model(f"{Path(path) / 'adapter_config.json'}: base_model_name_or_path", base)
    return PeftModel.from_pretrained(load_model(base, init), path, is_trainable=True)


def load_frozen(path: str, init: dict[str, Any]) -> Any:
    """The model of a folder or Hub id, adapters included, with nothing to train in it."""
    model = load_adapter(path, init).get_base_model() if is_adapter(path) else load_model(path, init)
    return model.requires_grad_(False)


def score_only_targets() -> None:
    """Let TRL project only the positions that carry loss on the CPU too, as it does on GPUs; the loss is the same.

    TRL 1.16 scores every position on a CPU, prompts included, to keep shapes fixed for accelerators that compile: four
    tenths of a step's time for the tiny model. Can go when `add_fused_lm_head` decides by the device's kind.
    """
    import torch
    from trl.trainer import utils

    on_gpu = utils._use_triton
    if on_gpu(torch.device("cpu")):  # done already
        return
    utils._use_triton = lambda device: device.type == "cpu" or on_gpu(device)


def load_rows(data_args: Any, stage: str) -> list[Row]:
    """The rows of the stage's table, as Python objects, with the difficulty and the negatives that the recipe asks for.

    Raises `UserError` when folder, table or split is missing, and when nothing fits.
    """
    table = "sft" if stage == "sft" else "preference"
    rows = read_split(Path(data_args.dataset_name), table, data_args.dataset_train_split)
    if data_args.difficulty != "all":
        rows = [row for row in rows if level(row["meta"]) == data_args.difficulty]
    if not rows:
        raise UserError(f"difficulty: {data_args.dataset_name}/{table} has no request that is {data_args.difficulty}")
    return rows if stage == "sft" else only(rows, data_args.negatives)


def only(groups: list[Row], wanted: list[str] | None) -> list[Row]:
    """The groups with only those negatives whose kind or verdict (`executed`) is in `wanted`; None keeps all.

    A group that has none is left out. Raises `UserError` when nothing is left.
    """
    if wanted is None:
        return groups
    kept = []
    for group in groups:
        facts = group["meta"]["negatives"]
        places = [k for k, n in enumerate(facts) if {n["kind"], n.get("executed", "")} & set(wanted)]
        if places:
            meta = {**group["meta"], "negatives": [facts[k] for k in places]}
            kept.append({**group, "rejected": [group["rejected"][k] for k in places], "meta": meta})
    if not kept:
        found = {word for g in groups for n in g["meta"]["negatives"] for word in (n["kind"], n.get("executed"))}
        there = ", ".join(sorted(word for word in found if word))
        raise UserError(f"negatives: none is of {', '.join(wanted)}; the dataset has {there}")
    return kept


def read_split(dataset: Path, table: str, split: str) -> list[Row]:
    """The rows of `dataset`/`table`, one split; `UserError` names what is missing."""
    from datasets import load_from_disk

    if not (dataset / table / "dataset_dict.json").is_file():
        raise UserError(
            f"dataset_name: {dataset} has no {table}/ dataset; make one with `rise synth SERVERS.json -o RUN`"
        )
    splits = load_from_disk(str(dataset / table))
    if split not in splits:
        raise UserError(f"dataset_train_split: {dataset / table} has no split {split!r}, only {', '.join(splits)}")
    wanted = {"messages", "tools", "meta"} if table == "sft" else {"prompt", "chosen", "rejected", "tools", "meta"}
    lacking = wanted - set(splits[split].column_names)
    if lacking:
        raise UserError(f"{dataset / table}: column {sorted(lacking)[0]!r} is missing from split {split!r}")
    return list(splits[split])


def log_probs(model: Any, rows: list[ProbeRow]) -> list[float]:
    """Sum of the target tokens' log-probabilities of each row; one row a forward pass, so padding plays no part."""
    import torch

    training = model.training
    model.eval()
    sums = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row.input_ids], device=model.device)
            labels = torch.tensor(row.labels[1:], device=model.device)
            scores = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            picked = scores.gather(-1, labels.clamp(min=0)[:, None])[:, 0]
            sums.append(float(picked[labels != -100].sum()))
    model.train(training)
    return sums


def reference_log_probs(trainer: Any, rows: list[ProbeRow]) -> list[float]:
    """`log_probs` under the model that a DPOTrainer really uses as reference."""
    from peft import PeftModel
    from trl.trainer.utils import use_adapter

    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.ref_model is not None:
        return log_probs(trainer.accelerator.unwrap_model(trainer.ref_model), rows)
    if not isinstance(model, PeftModel):  # precompute_ref_log_probs: the reference was the policy before its first step
        return log_probs(model, rows)
    with use_adapter(model, "ref" if "ref" in model.peft_config else None):
        return log_probs(model, rows)


def same_log_probs(left: list[float], right: list[float], *, exact_dtype: bool) -> bool:
    """Whether two probes are of one model: equal up to rounding, which is coarser below float32."""
    tolerance = 1e-4 if exact_dtype else 2e-2
    return len(left) == len(right) and all(
        abs(a - b) <= tolerance * max(1.0, abs(a)) for a, b in zip(left, right, strict=True)
    )
