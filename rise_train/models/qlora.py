"""QLoRA: an adapter over a base in 4 or 8 bits (bitsandbytes), by TRL's own fields; what cannot work is refused.

Two things that go wrong without a word are put right here: TRL rounds the adapter to three digits, and on a CPU
bitsandbytes stops handing gradients on once a model was evaluated.
"""

from typing import Any, Literal

from eval.policies.adapters import is_adapter
from synthesis.errors import UserError


def is_quantised(model_args: Any) -> bool:
    """Whether the base is loaded in 4 or 8 bits."""
    return bool(model_args.load_in_4bit or model_args.load_in_8bit)


def spread_by(training_args: Any) -> Literal["ZeRO-3", "FSDP", ""]:
    """What spreads the weights of this training over its processes, if anything does."""
    from accelerate.utils import parse_flag_from_env

    if training_args.deepspeed_plugin is not None and training_args.deepspeed_plugin.zero_stage == 3:
        return "ZeRO-3"
    return "FSDP" if training_args.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP") else ""


def quantisation(model_args: Any, training_args: Any) -> dict[str, Any] | None:
    """bitsandbytes' settings from TRL's fields (`load_in_4bit`, `use_bnb_nested_quant`, ...), None without them.

    Raises `UserError` for what cannot work: all weights to be trained, no bitsandbytes, weights that are to be spread.
    """
    from importlib.util import find_spec

    if not is_quantised(model_args):
        return None
    field = "load_in_4bit" if model_args.load_in_4bit else "load_in_8bit"
    if not model_args.use_peft:
        raise UserError(f"{field}: quantised weights cannot be trained; set use_peft: true, or leave {field} out")
    if find_spec("bitsandbytes") is None:
        raise UserError(f"{field} needs bitsandbytes: pip install 'rise-train[gpu]'")
    if model_args.dtype in (None, "auto"):
        raise UserError(f"dtype: {model_args.dtype}: with {field} say in which dtype to compute, bfloat16 or float32")
    spread = spread_by(training_args)
    if spread and (model_args.load_in_8bit or model_args.bnb_4bit_quant_storage != model_args.dtype):
        raise UserError(
            f"{field}: {spread} spreads weights of one floating dtype only; use load_in_4bit with "
            f"bnb_4bit_quant_storage: {model_args.dtype}, or ZeRO-2 or DDP"
        )
    from trl import get_quantization_config

    return dict(get_quantization_config(model_args).to_dict())


def keep_layout(model: Any) -> None:
    """Keep the 4-bit weights of a model in the one layout that can be trained.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 packs them anew for speed when a pass in evaluation mode comes by. The
    packed product has no backward, so that after a probe all gradients through these layers would be missing; and its
    scales are bfloat16, so that it is another model. Can go when `Linear4bit` unpacks for training.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def settle_adapter(model: Any, start: str, model_args: Any) -> None:
    """Give a trainer's adapter, where it has one, float32 and exactly the weights that it starts from.

    TRL 1.16 rounds the adapter of a quantised model to bfloat16, three digits. A step of AdamW is about as large as the
    learning rate, so that at 1e-6 no weight above 0.0005 would ever move. Can go when TRL keeps float32.

    Args:
        model: the trainer's model.
        start: what training starts from; weights are loaded if it is the folder of an adapter.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    if is_quantised(model_args):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if is_adapter(start):
        set_peft_model_state_dict(model, load_peft_weights(start, device="cpu"), adapter_name="default")
