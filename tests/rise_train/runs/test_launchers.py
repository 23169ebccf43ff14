"""Several processes train what one process trains: the same losses, step by step; killed between, too.

The whole matrix of launchers, with DeepSpeed and FSDP2, is `tests/bench/launchers.py`.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from handmade import ROOT, flags, train


def launch(arguments: list[str], out: Path) -> "subprocess.Popen[str]":
    """Start grouped DPO on two CPU processes (gloo), as `accelerate launch` and `rise train` do."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "rise_train.dpo", "--config", "recipes/tiny/dpo/config_lora.yaml", *arguments]
    log = out.with_suffix(".log").open("w")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill -9 the launcher and its workers at one moment."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family)
    process.wait()


def losses(out: Path) -> list[float]:
    """The loss of every step."""
    history = json.loads((out / "log_history.json").read_text())
    return [entry["loss"] for entry in history if "loss" in entry]


def test_two_killed_processes_have_the_curve_of_one(sft_lora: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    """Groups of unequal K: the processes hold different numbers of pairs in nearly every step."""
    one, two = tmp_path / "one", tmp_path / "two"
    # TRL's `sft` term is a mean over a micro-batch's tokens, which depends on how a batch is divided.
    same = {"train_sampling_strategy": "sequential", "max_grad_norm": 0, "loss_type": "sigmoid", "loss_weights": 1.0}
    train("dpo", "lora", sft_lora, tiny_dataset, one, per_device_train_batch_size=2, **same)

    arguments = flags("dpo", sft_lora, tiny_dataset, two, per_device_train_batch_size=1, **same)
    process, deadline = launch(arguments, two), time.monotonic() + 120
    while not (two / "checkpoint-2" / "trainer_state.json").is_file():
        assert process.poll() is None, two.with_suffix(".log").read_text()[-3000:]
        assert time.monotonic() < deadline, "no checkpoint in time"
        time.sleep(0.02)
    kill(process)
    assert not (two / "rise_manifest.json").exists()

    assert launch(arguments, two).wait() == 0, two.with_suffix(".log").read_text()[-3000:]
    assert "going on from step" in two.with_suffix(".log").read_text()
    assert len(losses(one)) >= 4
    assert losses(two) == pytest.approx(losses(one), rel=2e-5)
