"""What a model is made of, counted without its weights: its classes are built on empty tensors and looked at.

Nothing is guessed from a name. The architecture is the one that `transformers` would load, the adapter the one that
`peft` would add, and the activations are those that autograd would really keep.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.policies.adapters import base_of, is_adapter
from rise_train.models.loading import require_model
from synthesis.errors import UserError

BACKBONES = Path(__file__).with_name("backbones.yaml")


@dataclass(frozen=True)
class Shape:
    """Counts of a model's parameters; weights in bytes."""

    parameters: int
    """All of them, adapters included."""
    trainable: int
    trainable_bytes: int
    frozen_bytes: float
    """Weights that do not train; quantised ones as bitsandbytes stores them."""
    matmul: int
    """Parameters that a token is multiplied with: all but the table of input embeddings."""
    largest: int
    """Parameters of the largest layer."""
    embeddings: int
    """Parameters of the input embeddings and of the LM head."""
    vocabulary: int
    layers: int
    width: int
    """Numbers of the hidden state."""
    attention: int
    """Width of a layer's queries: heads times their size."""
    element: int
    """Bytes of a number in the type that the model computes in."""


def look(model_args: Any) -> Shape:
    """The shape of the model that training would load.

    Args:
        model_args: TRL's `ModelConfig`; an adapter folder as `model_name_or_path` means its base with that adapter.

    Raises:
        UserError: no configuration of the model can be read.
    """
    import torch

    with torch.device("meta"):
        model = skeleton(model_args)
    text = model.config.get_text_config()
    tables = {id(e.weight): e.weight.numel() for e in (model.get_input_embeddings(), model.get_output_embeddings())}
    untied = len(tables) == 2
    training = [p for p in model.parameters() if p.requires_grad]
    stacks = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == text.num_hidden_layers]
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in training),
        trainable_bytes=sum(p.numel() * p.element_size() for p in training),
        frozen_bytes=_frozen_bytes(model, model_args),
        matmul=sum(p.numel() for p in model.parameters()) - (max(tables.values()) if untied else 0),
        largest=max(sum(p.numel() for p in layer.parameters()) for layer in stacks[0]),
        embeddings=sum(tables.values()),
        vocabulary=text.vocab_size,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        attention=text.num_attention_heads * (getattr(text, "head_dim", None) or _head(text)),
        element=model.get_input_embeddings().weight.element_size(),
    )


def kept_bytes(model_args: Any, batch: int, length: int, layers: int, autocast: bool) -> int:
    """Bytes that a forward pass of `layers` layers keeps for the backward pass, parameters apart.

    The real forward runs on fake tensors (no memory, no data) and autograd's own hooks see each tensor that it saves.
    Attention is `sdpa`, whose fused kernels keep no square of the length. The LM head, which TRL computes in tiles, is
    left out.

    Args:
        batch: sequences.
        length: tokens of each.
        layers: how many layers the model is built with.
        autocast: whether the forward runs under bfloat16 autocast, as `bf16: true` asks.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.autograd.graph import saved_tensors_hooks

    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that its address is not given to another
        return tensor

    with torch.device("meta"):
        decoder = skeleton(model_args, layers).get_decoder().train()
    with FakeTensorMode():
        tensors = {name: torch.empty(b.shape, dtype=b.dtype) for name, b in decoder.named_buffers()}
        weights = {name: torch.empty(p.shape, dtype=p.dtype) for name, p in decoder.named_parameters()}
        weights = {n: torch.nn.Parameter(w, decoder.get_parameter(n).requires_grad) for n, w in weights.items()}
        ids = torch.zeros(batch, length, dtype=torch.long)
        with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = torch.func.functional_call(
                decoder, {**weights, **tensors}, kwargs={"input_ids": ids, "use_cache": False}
            )
        own = {w.untyped_storage()._cdata for w in weights.values()}
        total = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
        del output
    return total


def skeleton(model_args: Any, layers: int | None = None) -> Any:
    """The model that training would load, with its adapter, on the present default device.

    Args:
        layers: build only so many layers.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    from trl import get_peft_config

    path = model_args.model_name_or_path
    config = read_config(base_of(path), model_args.model_revision)
    if layers is not None:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    dtype = getattr(torch, model_args.dtype or "float32", config.dtype or torch.float32)  # `auto`: as it was saved
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    adapter = get_peft_config(model_args)
    if is_adapter(path) and model_args.use_peft:
        adapter = LoraConfig.from_pretrained(path)
        adapter.inference_mode = False
    return model if adapter is None else get_peft_model(model, adapter)


def read_config(path: str, revision: str | None = None) -> Any:
    """The configuration of a base model: from the table of known backbones, else from its folder or the Hub.

    Raises `UserError` where there is none.
    """
    import yaml
    from transformers import AutoConfig

    known = yaml.safe_load(BACKBONES.read_text())
    if path in known:
        return AutoConfig.for_model(**known[path])
    require_model("model_name_or_path", path)
    try:
        return AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model_name_or_path: no configuration of {path} could be read ({' '.join(str(error).split())[:200]})"
        ) from error


def _head(text: Any) -> int:
    return int(text.hidden_size // text.num_attention_heads)


def _frozen_bytes(model: Any, model_args: Any) -> float:
    """Bytes of the weights that do not train.

    bitsandbytes quantises the linear layers but for the LM head (QLoRA, arXiv 2305.14314, section 3): half a byte a
    weight and a float32 scale for each 64 of them; with nested quantisation the scales are bytes, with a float32 for
    each 256. In 8 bits it is a byte a weight.
    """
    import torch

    small = 0.5 + (1 / 64 + 4 / (64 * 256) if model_args.use_bnb_nested_quant else 4 / 64)
    stored = small if model_args.load_in_4bit else 1.0 if model_args.load_in_8bit else None
    head, total = model.get_output_embeddings(), 0.0
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.requires_grad:
                continue
            quantised = stored is not None and isinstance(module, torch.nn.Linear) and module is not head
            quantised = quantised and name == "weight"
            total += weight.numel() * (stored if stored is not None and quantised else weight.element_size())
    return total
