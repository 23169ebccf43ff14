"""Small random models of any architecture."""

from typing import Any

import torch

VOCABULARY = 97


def small(kind: str = "llama", **options: Any) -> Any:
    """A random model of two layers in evaluation mode."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        **options,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def lively(dtype: torch.dtype = torch.float32, kind: str = "llama") -> Any:
    """A small model whose answers depend on what it reads, as a trained one's do."""
    model = small(kind)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model.to(dtype)
