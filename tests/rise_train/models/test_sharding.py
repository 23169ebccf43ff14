"""A model that a launcher has divided is looked at before training without ever standing whole."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rise_train.models.fingerprint import ProbeRow, log_probs
from rise_train.models.sharding import placed


class Zero3:
    """DeepSpeed's way with weights, on one process: away, and there within `GatheredParameters`."""

    def __init__(self, model: Any) -> None:
        self.weights = {id(weight): weight.data for weight in model.parameters()}
        self.largest = 0
        self.model = model
        self.part(list(model.parameters()))

    def part(self, weights: list[Any]) -> None:
        for weight in weights:
            weight.data = torch.empty(0)

    def gathered(self, weights: list[Any]) -> "Gathered":
        return Gathered(self, weights)


class Gathered:
    def __init__(self, zero: Zero3, weights: list[Any]) -> None:
        self.zero, self.weights = zero, weights

    def __enter__(self) -> None:
        for weight in self.weights:
            weight.data = self.zero.weights[id(weight)]
        there = sum(weight.numel() for weight in self.zero.model.parameters())
        self.zero.largest = max(self.zero.largest, there)

    def __exit__(self, *_: object) -> None:
        self.zero.part(self.weights)


def test_zero3_gathers_a_module_at_a_time(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    rows = [ProbeRow("", list(range(3, 20)), [-100] * 9 + list(range(12, 20)))]
    expected, total = log_probs(model, rows), model.num_parameters()
    zero = Zero3(model)
    deepspeed = ModuleType("deepspeed")
    deepspeed.zero = SimpleNamespace(GatheredParameters=zero.gathered)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    monkeypatch.setattr("transformers.integrations.is_deepspeed_zero3_enabled", lambda: True)
    accelerator = SimpleNamespace(unwrap_model=lambda given: given, device=torch.device("cpu"))

    with placed(SimpleNamespace(model=model, accelerator=accelerator)):
        assert log_probs(model, rows) == expected
    with pytest.raises(RuntimeError):
        log_probs(model, rows)  # divided again, and no hook is left
    assert all(weight.numel() == 0 for weight in model.parameters())
    head = zero.weights[id(model.get_output_embeddings().weight)].numel()
    assert head < zero.largest < (head + total) / 2
