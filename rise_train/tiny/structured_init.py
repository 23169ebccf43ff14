"""A stock `LlamaForCausalLM` that starts with copying heads instead of having to discover them.

A normally initialised model of this size did not learn to copy within millions of tokens; with this initialisation it
does within one (docs/tiny-model.md). It is a prior on copying and holds no task data: three attention heads are set,
everything is trained as usual afterwards.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

ROPE_THETA = 1e6


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the model; the defaults give 2.2 million parameters."""

    vocab_size: int = 2048
    hidden_size: int = 192
    layers: int = 4
    intermediate_size: int = 512
    head_dim: int = 64
    embedding_std: float = 0.08


def build_model(shape: TinyShape, seed: int) -> "LlamaForCausalLM":
    """A float32 Llama of `shape` with tied embeddings, attention biases and the structured initialisation."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    heads = shape.hidden_size // shape.head_dim
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate_size,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=shape.head_dim,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, shape.embedding_std)
        _CopyHeads(model, shape).install()
    return model


def _orthogonal(size: int) -> Tensor:
    q: Tensor = torch.linalg.qr(torch.randn(size, size))[0]
    return q


class _CopyHeads:
    """Writes previous-token heads into layer 0 and matching (induction) heads into layers 1 and 2."""

    def __init__(self, model: "LlamaForCausalLM", shape: TinyShape) -> None:
        self.attention = [layer.self_attn for layer in model.model.layers]
        self.dim, self.width = shape.head_dim, shape.hidden_size
        half = shape.head_dim // 2
        self.frequency = ROPE_THETA ** (-torch.arange(half).float() * 2 / shape.head_dim)
        slow = (self.frequency < 0.003).nonzero()[:, 0]
        self.slow = torch.cat([slow, slow + half])  # dimensions that RoPE hardly turns: usable for matching identity
        self.identity = _orthogonal(self.width)[:, : len(self.slow)].T.contiguous()  # token -> compressed identity
        basis = _orthogonal(self.width)
        k = len(self.slow)
        self.slots = [
            basis[:, i * k : (i + 1) * k] for i in range(self.width // k)
        ]  # where past identities are written
        self.write_gain = shape.embedding_std * self.width**0.5 / k**0.5 * 0.7

    def install(self) -> None:
        self._look_back(head=0, distance=1)
        if self.width // self.dim > 1:
            self._look_back(head=1, distance=2)
        previous, before = self.slots[0].T, self.slots[1].T
        self._match(layer=1, pairs=[(self.identity, previous)], gain=1.6)
        if len(self.attention) > 2:
            self._match(layer=2, pairs=[(self.identity, previous), (previous, before)], gain=2.08)

    def _look_back(self, head: int, distance: int, sharpness: float = 5.0) -> None:
        """A head of layer 0 that attends `distance` tokens back, by biases on the fast RoPE pairs alone."""
        block, rows = self.attention[0], slice(head * self.dim, (head + 1) * self.dim)
        fast = (self.frequency > 0.05).nonzero()[:, 0]
        first, second = head * self.dim + fast, head * self.dim + fast + self.dim // 2
        block.q_proj.weight[rows] = 0
        block.k_proj.weight[rows] = 0
        block.q_proj.bias[first], block.q_proj.bias[second] = sharpness, 0.0
        angle = self.frequency[fast] * distance
        block.k_proj.bias[first], block.k_proj.bias[second] = sharpness * angle.cos(), sharpness * angle.sin()
        self._carry(0, head, self.identity, self.slots[head] * self.write_gain)

    def _match(self, layer: int, pairs: list[tuple[Tensor, Tensor]], gain: float) -> None:
        """Head 0 of `layer` attends where each key equals its query, and copies the token found there."""
        block, rows = self.attention[layer], slice(0, self.dim)
        block.q_proj.weight[rows] *= 0.1
        block.k_proj.weight[rows] *= 0.1
        for i, (query, key) in enumerate(pairs):
            block.q_proj.weight[self.slow[i :: len(pairs)]] = gain * query[i :: len(pairs)]
            block.k_proj.weight[self.slow[i :: len(pairs)]] = gain * key[i :: len(pairs)]
        copy = _orthogonal(self.width)[:, : self.dim].T
        self._carry(layer, 0, copy, copy.T * 0.35)

    def _carry(self, layer: int, head: int, value: Tensor, output: Tensor) -> None:
        block, start = self.attention[layer], head * self.dim
        block.v_proj.weight[start : start + self.dim] *= 0.1
        block.o_proj.weight[:, start : start + self.dim] *= 0.1
        block.v_proj.weight[start : start + len(value)] = value
        block.o_proj.weight[:, start : start + output.shape[1]] = output
