"""A training that was killed and started again ends where an undisturbed one ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from handmade import ROOT, flags, train

from synthesis.errors import UserError


def kill_after(stage: str, recipe: str, arguments: list[str], checkpoint: Path) -> None:
    """Start the stage's command and kill -9 it as soon as `checkpoint` is whole."""
    cmd = [sys.executable, "-m", f"rise_train.{stage}", "--config", f"recipes/tiny/{stage}/config_{recipe}.yaml"]
    process = subprocess.Popen([*cmd, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (checkpoint / "trainer_state.json").is_file():
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint in time"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def check_resume(stage: str, recipe: str, model: Path, dataset: Path, tmp_path: Path) -> Path:
    """Train straight through, and with a kill at step 2; the manifests must agree. Returns the latter's folder."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(stage, recipe, model, dataset, straight)
    kill_after(stage, recipe, flags(stage, model, dataset, broken), broken / "checkpoint-2")
    assert not (broken / "rise_manifest.json").exists()
    # A kill can also hit a checkpoint half way: such a one is passed over.
    (broken / "checkpoint-9000").mkdir()
    train(stage, recipe, model, dataset, broken)

    left, right = (json.loads((folder / "rise_manifest.json").read_text()) for folder in (straight, broken))
    assert left["final_loss"] == right["final_loss"]
    assert left["probe"] == right["probe"]
    assert left["config_hash"] == right["config_hash"]
    return broken


def test_killed_sft_is_the_same(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = check_resume("sft", "full", tiny_model, tiny_dataset, tmp_path)
    assert "going on from step" in capsys.readouterr().out

    train("sft", "full", tiny_model, tiny_dataset, broken)
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds a training with another learning_rate"):
        train("sft", "full", tiny_model, tiny_dataset, broken, learning_rate=0.5)


def test_killed_dpo_with_two_adapters_is_the_same(sft_lora: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    check_resume("dpo", "lora", sft_lora, tiny_dataset, tmp_path)
