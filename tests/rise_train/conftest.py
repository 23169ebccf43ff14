"""Fixtures of the publishing tests: an adapter, and a stand-in for the Hub that the client talks to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import WRITER, Hub, serve


@pytest.fixture(scope="session")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter on the small model, with a `ref` adapter beside it as TRL's DPOTrainer leaves one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("lora") / "adapter"
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    model.add_adapter("ref", config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    assert (folder / "ref" / "adapter_model.safetensors").is_file()
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running stand-in for the Hub; this process and its children talk to it, and may write there."""
    from huggingface_hub import constants

    with serve() as running:
        for name, value in {
            "HF_ENDPOINT": running.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": WRITER,
            "HF_XET_DATA_XORB_COMPRESSION_POLICY": "none",
            "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
            "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of `rise publish` in this process, where a clean one is not what is tested: it starts for seconds."""
    from rise_train.publishing import clean_load, same_replies

    def ask(found: Any, copy: Path, prompts: list[dict[str, Any]]) -> list[list[clean_load.Answer]]:
        return list(clean_load.answers([(str(found.model), found.base), (str(copy), found.base)], prompts))

    monkeypatch.setattr(same_replies, "_ask", ask)
