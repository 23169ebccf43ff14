"""Fixtures that several test packages share: a hand-made dataset of real shape and a small random model.

Both are built once a session into a temporary folder. The model has never been trained: it is for mechanics, not for
scores.
"""

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(
    prefix="rise-datasets-"
)  # rows encoded by these tests, and no others

from pathlib import Path

import pytest
from handmade import sft_row, tiny_llama, train, write_dataset
from hypothesis import settings

# The same examples in every run, and no time limit: a busy machine must not fail a property.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `sft/` and `preference/` DatasetDicts: 18 train and 6 test rows; single, sequential and parallel."""
    rows = [sft_row(i) for i in range(24)]
    return write_dataset(tmp_path_factory.mktemp("dataset"), rows[:18], rows[18:])


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a small random Llama (about 0.1M parameters, float32) and its tokenizer, TRL's qwen3 template."""
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def sft_full(tiny_model: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `tiny_model` after a few steps of full SFT."""
    return train("sft", "full", tiny_model, tiny_dataset, tmp_path_factory.mktemp("sft_full"))


@pytest.fixture(scope="session")
def sft_lora(tiny_model: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the LoRA adapter of a few steps of SFT on `tiny_model`."""
    return train("sft", "lora", tiny_model, tiny_dataset, tmp_path_factory.mktemp("sft_lora"))
