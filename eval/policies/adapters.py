"""PEFT adapter folders: what they are known by, and the model that they stand on."""

import json
from pathlib import Path

from synthesis.errors import UserError

CONFIG = "adapter_config.json"


def is_adapter(path: str | Path) -> bool:
    """Whether `path` is a PEFT adapter folder."""
    return (Path(path) / CONFIG).is_file()


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
