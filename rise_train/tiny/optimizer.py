"""Muon (Jordan et al., 2024) for the matrices of the tiny base, in float32.

PyTorch ships a Muon that orthogonalises in bfloat16, which a processor without bfloat16 units computes twelve times
slower than float32 (measured); on a GPU use `torch.optim.Muon`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Coefficients of the quintic Newton-Schulz iteration, as published with Muon.
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalise(batch: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices, approximately. `batch`: (n, rows, columns)."""
    transposed = batch.shape[1] > batch.shape[2]
    x: Tensor = batch.mT if transposed else batch
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x.mT if transposed else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. Matrices of one shape are orthogonalised in one batched product."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, params in shapes.items():
                updates = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    assert p.grad is not None
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(buffer, group["momentum"]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(params, orthogonalise(torch.stack(updates)), strict=True):
                    p.add_(update, alpha=-scale)
