"""The estimate against what is really allocated and computed, on small models of the same architectures."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rise_train.models.skeleton import look
from rise_train.runs.estimate import Load, activations, memory, operations
from rise_train.runs.processes import Kind, Launch

ADAPTER = {"use_peft": True, "lora_r": 8, "lora_target_modules": ["all-linear"]}


def model_args(path: Path, **changes: Any) -> Any:
    """TRL's `ModelConfig` of a model folder."""
    from trl import ModelConfig

    return ModelConfig(model_name_or_path=str(path), **changes)


def loaded(args: Any, **options: Any) -> Any:
    """The model with real weights, as a trainer would have it."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM
    from trl import get_peft_config

    model = AutoModelForCausalLM.from_pretrained(args.model_name_or_path, dtype=args.dtype, **options)
    adapter = get_peft_config(args)
    return model if adapter is None else get_peft_model(model, adapter)


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 of four layers that are wide beside its vocabulary, as in large models: 5 million parameters."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=False,
    )
    folder = tmp_path_factory.mktemp("wide")
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [{}, ADAPTER], ids=["full", "lora"])
def test_weights_gradients_and_states(wide_model: Path, adapter: dict[str, Any], dtype: str) -> None:
    """Byte for byte what PyTorch holds after a step of AdamW."""
    import torch

    args = model_args(wide_model, dtype=dtype, **adapter)
    shape, model = look(args), loaded(args)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    training = [p for p in model.parameters() if p.requires_grad]
    assert shape.trainable == sum(p.numel() for p in training)

    optimiser = torch.optim.AdamW(training)
    ids = torch.arange(12).view(1, 12)
    model(input_ids=ids, labels=ids).loss.backward()
    optimiser.step()
    need = memory(shape, Launch(), 0.0, "adamw_torch_fused", "none", autocast=False)
    assert need.weights == sum(p.nbytes for p in model.parameters())
    assert need.gradients == sum(p.grad.nbytes for p in training)
    states = [s for p in training for s in optimiser.state[p].values() if s.dim()]  # without the count of steps
    assert need.optimiser == sum(s.nbytes for s in states)
    assert need.reference == need.buffers == 0


def peak_bytes(work: Callable[[], None]) -> int:
    """The most bytes that tensors made by `work` held at one time, forward and backward."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Live(TorchDispatchMode):
        """Sees every tensor that an operation returns, and when its storage is freed."""

        def __init__(self) -> None:
            super().__init__()
            self.alive: dict[int, tuple[int, Any]] = {}
            self.now = self.peak = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    self.see(tensor.untyped_storage())
            return out

        def see(self, storage: torch.UntypedStorage) -> None:
            key = storage._cdata
            if key not in self.alive:
                self.alive[key] = storage.nbytes(), weakref.ref(storage, lambda _: self.forget(key))
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)

        def forget(self, key: int) -> None:
            self.now -= self.alive.pop(key)[0]

    with Live() as live:
        work()
    return live.peak


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("adapter", [{}, ADAPTER], ids=["full", "lora"])
def test_activations(wide_model: Path, adapter: dict[str, Any], checkpointing: bool) -> None:
    """Within a factor of 1.35 of the measured peak of a forward and backward pass, parameters and gradients apart."""
    import torch

    args = model_args(wide_model, dtype="float32", **adapter)
    model = loaded(args).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    for p in model.parameters():  # made before, so that they are not among what is measured
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    ids = torch.arange(2 * 512).view(2, 512) % 512

    def work() -> None:
        model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()

    load = Load(sequences=2, tokens=512, checkpointing=checkpointing, autocast=False)
    tile = 2 * 512 * 512 * (4 + 4)  # the LM head's, which was not run
    ratio = (activations(args, look(args), load) - tile) / peak_bytes(work)
    assert 1 / 1.35 < ratio < 1.35


@pytest.mark.parametrize("adapter", [{}, ADAPTER], ids=["full", "lora"])
def test_operations(wide_model: Path, adapter: dict[str, Any]) -> None:
    """Against PyTorch's own count of a forward and backward pass."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    args = model_args(wide_model, dtype="float32", **adapter)
    model = loaded(args, attn_implementation="eager")  # PyTorch does not count the fused attention of a CPU
    ids = torch.arange(2 * 512).view(2, 512) % 512
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    expected = operations(
        look(args), 2 * 512, 2 * 512, reference=0, checkpointing=False
    )  # PyTorch counts no causal half
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.08)


def test_sharing(wide_model: Path) -> None:
    """ZeRO divides states, then gradients, then weights (arXiv 1910.02054, table 1); FSDP2 all of them."""
    shape = look(model_args(wide_model, dtype="bfloat16"))
    needs = {}
    kinds: tuple[Kind, ...] = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
    for kind in kinds:
        needs[kind] = memory(shape, Launch(kind, 8), 0.0, "adamw_torch", "none", autocast=True)
    p = shape.parameters
    assert (needs["zero1"].weights, needs["zero1"].gradients, needs["zero1"].optimiser) == (2 * p, 2 * p, 12 * p / 8)
    assert (needs["zero2"].weights, needs["zero2"].gradients) == (2 * p, 2 * p / 8)
    assert (needs["zero3"].weights, needs["zero3"].optimiser) == (2 * p / 8, 12 * p / 8)
    assert (needs["fsdp2"].weights, needs["fsdp2"].optimiser) == (4 * p / 8, 8 * p / 8)
    offload = memory(
        shape, Launch("zero3", 8, offload_optimiser=True, offload_weights=True), 0.0, "adamw_torch", "none", True
    )
    assert offload.weights == offload.optimiser == offload.gradients == 0


def test_a_reference_takes_memory(wide_model: Path) -> None:
    full, lora = (
        look(model_args(wide_model, dtype="bfloat16")),
        look(model_args(wide_model, dtype="bfloat16", **ADAPTER)),
    )
    assert memory(full, Launch(), 0.0, "adamw_torch", "model", True).reference == 2 * full.parameters
    assert memory(lora, Launch(), 0.0, "adamw_torch", "adapter", True).reference == 4 * lora.trainable
    assert memory(full, Launch("zero3", 4), 0.0, "adamw_torch", "model", True).reference == full.parameters / 2


def test_four_bits(wide_model: Path) -> None:
    """Linear layers but the LM head in half a byte and the scales; the rest as it was."""
    plain = look(model_args(wide_model, dtype="bfloat16", **ADAPTER))
    small = look(model_args(wide_model, dtype="bfloat16", load_in_4bit=True, use_bnb_nested_quant=True, **ADAPTER))
    linear = 4 * (256 * 64 * 4 * 2 + 256 * 64 * 2 * 2 + 3 * 256 * 768)
    rest = plain.frozen_bytes - 2 * linear
    assert small.frozen_bytes == pytest.approx(rest + linear * (0.5 + 1 / 64 + 4 / (64 * 256)))
