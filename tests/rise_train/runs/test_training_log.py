"""What a training says while it runs: the rate, the time left, and where wandb records."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from handmade import train

from rise_train.runs import training_log as progress
from rise_train.runs.training_log import ProgressCallback, settle_wandb
from synthesis.errors import UserError


def test_rate_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the step at which it went on, not from the first: 40 of 100 steps, ten of them here, in 5 seconds."""
    clock = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    callback = ProgressCallback("sft", tmp_path, tokens=50_000)
    state = SimpleNamespace(global_step=30, max_steps=100, epoch=0.6, is_world_process_zero=True, log_history=[])
    args, control = SimpleNamespace(), SimpleNamespace()
    callback.on_train_begin(args, state, control)
    clock[0], state.global_step, state.epoch = 105.0, 40, 0.8
    callback.on_log(args, state, control, logs={"loss": 0.5})
    assert "going on from step 30" in (said := capsys.readouterr().out)
    assert "step 40/100  loss 0.5000  2,000 tokens/s, 5 s, 30 s left" in said


def arguments(folder: Path, *report_to: str) -> Any:
    """Training arguments as far as `settle_wandb` looks at them."""
    return SimpleNamespace(report_to=list(report_to), output_dir=str(folder), process_index=0)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login of this machine's user plays a part, and nothing set here stays."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_BASE_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.usefixtures("nobody")
def test_wandb_without_login_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settle_wandb(arguments(tmp_path))
    assert "WANDB_MODE" not in os.environ

    monkeypatch.setattr(progress, "find_spec", lambda name: name)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    settle_wandb(arguments(tmp_path, "wandb"))
    assert "WANDB_MODE" not in os.environ

    (tmp_path / "netrc").unlink()
    settle_wandb(arguments(tmp_path, "wandb"))
    assert os.environ["WANDB_MODE"] == "offline"
    assert "records offline" in capsys.readouterr().out


@pytest.mark.usefixtures("nobody")
def test_wandb_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rise-train\[wandb\]'"):
        settle_wandb(arguments(tmp_path, "wandb"))


@pytest.mark.usefixtures("nobody")
def test_wandb_for_real(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    """A training that reports to wandb, with nobody logged in, writes its file beside the model and asks nothing."""
    pytest.importorskip("wandb", reason="wandb is an extra: pip install 'rise-train[wandb]'")
    out = train("sft", "lora", tiny_model, tiny_dataset, tmp_path / "out", report_to="wandb", max_steps=2)
    assert list(out.glob("wandb/offline-run-*/*.wandb"))
