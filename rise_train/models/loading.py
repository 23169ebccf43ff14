"""Models, adapters and tokenizers as the training stages load them."""

import json
from pathlib import Path
from typing import Any

from eval.policies.adapters import base_of, is_adapter, put_on, refuse_gguf
from eval.replies import templates
from rise_train.rows.masking import use_training_template
from synthesis.errors import UserError

Row = dict[str, Any]


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
    refuse_gguf(path)
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
    # Left out, TRL (1.16) would spread the model over all GPUs that this process sees.
    alone = training_args.distributed_state.distributed_type == DistributedType.NO
    init["device_map"] = {"": training_args.device} if alone and training_args.device.type != "cpu" else None
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
    base = base_of(path)
    require_model(f"{Path(path) / 'adapter_config.json'}: base_model_name_or_path", base)
    return put_on(load_model(base, init), path, is_trainable=True)


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
