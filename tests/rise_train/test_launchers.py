"""Several processes train what one process trains: the same losses, step by step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from handmade import ROOT, flags


def launch(stage: str, recipe: str, model: Path, dataset: Path, out: Path, processes: int, batch: int) -> list[float]:
    """Train by torchrun on the CPU (gloo); returns the loss of every step."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += ["-m", f"rise_train.{stage}"]
    command += ["--config", f"recipes/tiny/{stage}/config_{recipe}.yaml", *flags(stage, model, dataset, out)]
    command += ["--per_device_train_batch_size", str(batch), "--train_sampling_strategy", "sequential"]
    command += ["--logging_steps", "1", "--num_train_epochs", "1", "--max_grad_norm", "0"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    history = json.loads((out / "log_history.json").read_text())
    return [entry["loss"] for entry in history if "loss" in entry]


def test_two_processes_have_the_curve_of_one(sft_lora: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    """Groups of unequal K: the processes hold different numbers of pairs in nearly every step."""
    one = launch("dpo", "lora", sft_lora, tiny_dataset, tmp_path / "one", 1, 2)
    two = launch("dpo", "lora", sft_lora, tiny_dataset, tmp_path / "two", 2, 1)
    assert len(one) >= 4
    assert two == pytest.approx(one, rel=1e-3, abs=1e-4)
