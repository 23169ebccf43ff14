"""What leaves this machine of a trained model: its files without what only this machine knows, or one merged model."""

import json
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.policies.adapters import put_on
from synthesis.errors import UserError
from synthesis.json_file import write_json

WEIGHTS = re.compile(
    r"(adapter_)?config\.json|generation_config\.json|(adapter_)?model[\w.-]*\.safetensors|model\.safetensors\.index\.json"
)
TOKENIZER = re.compile(
    r"tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt"
    r"|[\w.-]+\.model|chat_template\.jinja"
)
LOCAL_KEYS = {"_name_or_path", "name_or_path", "tokenizer_file"}
"""Keys of configuration files that only say where a file was on this machine."""


@dataclass(frozen=True)
class Source:
    """What is published: the trained folder, and the run and arm that it came from, where known."""

    model: Path
    run: Path | None = None
    arm: str | None = None

    @property
    def adapter(self) -> dict[str, Any] | None:
        """The configuration of an adapter; None for a full model."""
        config = self.model / "adapter_config.json"
        return dict(json.loads(config.read_text())) if config.is_file() else None

    @property
    def base(self) -> str | None:
        """The base that an adapter names; None for a full model."""
        return str(self.adapter["base_model_name_or_path"]) if self.adapter else None


def find_source(source: Path, arm: str) -> Source:
    """The model folder that `source` means: itself, or the one of `arm` in a run directory."""
    if (source / "ablation.json").is_file():
        arms = json.loads((source / "ablation.json").read_text())["arms"]
        trained = [name for name, facts in arms.items() if "stage" in facts]
        if arm not in trained:
            raise UserError(f"{source / 'ablation.json'}: no trained arm {arm!r}; there are {', '.join(trained)}")
        found = Source(source / arms[arm]["model"], source, arm)
    else:
        found = Source(source)
    if not any((found.model / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise UserError(
            f"{found.model}: expected a run with an ablation.json, or the folder of a model (config.json) or of an "
            "adapter (adapter_config.json)"
        )
    return found


def copy_model(found: Source, target: Path, base_id: str | None) -> None:
    """Copy what belongs to the model or adapter, without what only this machine knows.

    Raises:
        UserError: no safetensors, no tokenizer or no chat template.
    """
    if not any(WEIGHTS.fullmatch(path.name) and path.suffix == ".safetensors" for path in found.model.iterdir()):
        raise UserError(f"{found.model}: no .safetensors; other formats can carry code and are not published")
    _copy(found.model, target, WEIGHTS)
    _copy_tokenizer(found.model, target)
    _clean(target, base_id)


def merge_model(found: Source, target: Path) -> None:
    """Write the adapter merged into its base as one model, in the base's own float type.

    Each layer's sum is made in float32 and rounded once, so that beside the model only one layer is held in float32. Of
    a base that was quantised in training the weights as they are published are taken.

    Raises:
        UserError: a full model, an adapter other than LoRA, or one that does not fit its base.
    """
    from transformers import AutoModelForCausalLM

    if found.adapter is None:
        raise UserError(f"--merged: {found.model} is a full model already; there is no adapter to merge")
    if found.adapter["peft_type"] != "LORA":
        raise UserError(f"--merged: {found.model} is {found.adapter['peft_type']}; only LoRA adapters can be merged")
    try:
        base = AutoModelForCausalLM.from_pretrained(found.base, dtype="auto")
        merged = _merged(put_on(base, found.model))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--merged: {found.model} does not merge into {found.base}: {' '.join(str(error).split())[:300]}"
        ) from error
    merged.save_pretrained(target)
    _copy_tokenizer(found.model, target)
    _clean(target, None)


def _merged(model: Any) -> Any:
    """The base of a PeftModel with its adapter added, layer by layer."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in [found for found in model.modules() if isinstance(found, BaseTunerLayer)]:
        layer = module.get_base_layer()
        dtype = next(layer.parameters()).dtype
        layer.to(torch.float32)
        module.merge(safe_merge=True)
        layer.to(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All adapters are already merged")
        return model.merge_and_unload()


def _copy(source: Path, target: Path, kept: re.Pattern[str]) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and kept.fullmatch(path.name):
            shutil.copyfile(path, target / path.name)


def _copy_tokenizer(source: Path, target: Path) -> None:
    _copy(source, target, TOKENIZER)
    settings = target / "tokenizer_config.json"
    if not settings.is_file():
        raise UserError(f"{source}: no tokenizer_config.json; the tokenizer belongs into the folder")
    if not (target / "chat_template.jinja").is_file() and not json.loads(settings.read_text()).get("chat_template"):
        raise UserError(f"{source}: no chat template (chat_template.jinja); without it nobody knows the prompt")


def _clean(target: Path, base_id: str | None) -> None:
    """Take out of the configurations what only this machine knows; an adapter names its base by the Hub's id."""
    for path in target.glob("*config.json"):
        config = {key: value for key, value in json.loads(path.read_text()).items() if key not in LOCAL_KEYS}
        if path.name == "adapter_config.json":
            config["base_model_name_or_path"] = base_id
        write_json(path, config)
