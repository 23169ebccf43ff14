"""PEFT adapter folders: what they are known by, and the model that they stand on."""

import json
import re
from pathlib import Path
from typing import Any

from synthesis.errors import UserError

CONFIG = "adapter_config.json"
_MISMATCH = re.compile(r"size mismatch for (\S+): .*?Size\(\[([\d, ]*)\]\).*?Size\(\[([\d, ]*)\]\)", re.DOTALL)


def is_adapter(path: str | Path) -> bool:
    """Whether `path` is a PEFT adapter folder."""
    return (Path(path) / CONFIG).is_file()


def refuse_gguf(path: str | Path) -> None:
    """Raise `UserError` for a GGUF file, or a folder that holds a model only as one."""
    folder = Path(path)
    alone = folder.is_dir() and any(folder.glob("*.gguf")) and not any(folder.glob("*config.json"))
    if alone or folder.suffix == ".gguf":
        file = next(folder.glob("*.gguf")) if alone else folder
        raise UserError(
            f"{path}: GGUF is a format to be asked in, not to be trained; `rise model {file} -o DIR` writes it as a "
            "model to train"
        )


def base_of(path: str | Path) -> str:
    """The base model of an adapter folder, or `path` itself for a full model.

    A relative path may be meant as seen from the adapter's folder.

    Raises:
        UserError: an adapter whose config names no base.
    """
    if not is_adapter(path):
        return str(path)
    config = Path(path) / CONFIG
    try:
        base = json.loads(config.read_text("utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{config}: expected a JSON object") from error
    if not isinstance(base, str) or not base:
        raise UserError(f"{config}: base_model_name_or_path: expected the base model's folder or Hub id")
    beside = Path(path) / base
    return str(beside) if beside.is_dir() and not Path(base).is_dir() else base


def put_on(base: Any, path: str | Path, **options: Any) -> Any:
    """The `PeftModel` of adapter folder `path` on its base, which is loaded; `options` are those of `from_pretrained`.

    Raises:
        UserError: an adapter that does not fit: another base's, or of one whose vocabulary had another size.
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(base, str(path), **options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: the adapter does not fit its base {base_of(path)}: {misfit(str(error))}") from error


def misfit(error: str) -> str:
    """What PEFT complains of, in one sentence."""
    if (found := _MISMATCH.search(error)) is None:
        return " ".join(error.split())[:300]
    tensor, ours, theirs = found.groups()
    rows = [shape.split(",")[0] for shape in (ours, theirs)]
    said = f"{tensor} has the shape [{ours}] in the adapter, and [{theirs}] in the base"
    if rows[0] == rows[1] or not re.search(r"embed|lm_head|wte|embd", tensor):
        return said
    return (
        f"{said}; it was trained with a vocabulary of {rows[0]} tokens, and the base has {rows[1]}: resize the base as "
        "in training, save it, and name that as base_model_name_or_path"
    )
