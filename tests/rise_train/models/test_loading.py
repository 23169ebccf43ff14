"""Adapters that others made: one that does not fit its base is refused in one sentence, wherever it is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.policies.local import LocalPolicy
from rise_train.models.loading import load_adapter
from rise_train.publishing.publish import publish
from synthesis.errors import UserError


@pytest.fixture(scope="module")
def made_elsewhere(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of a base with one more token, and one that names another base than its own."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("adapters")

    def adapter(name: str, **changes: Any) -> Path:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        if changes.pop("resized", False):
            tokenizer.add_special_tokens({"additional_special_tokens": ["<|extra|>"]})
            model.resize_token_embeddings(len(tokenizer))
        torch.manual_seed(0)
        tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        tuned.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        config = folder / name / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
        return folder / name

    other = AutoModelForCausalLM.from_config(
        AutoModelForCausalLM.from_pretrained(tiny_model, intermediate_size=96, ignore_mismatched_sizes=True).config
    )
    other.save_pretrained(folder / "other")
    return {
        "resized": adapter("resized", resized=True),
        "foreign": adapter("foreign", base_model_name_or_path=str(folder / "other")),
    }


MISFITS = {
    "resized": r"does not fit its base .*: \S*embed\S* has the shape \[(\d+), 64\] in the adapter, and \[\d+, 64\] in "
    r"the base; it was trained with a vocabulary of \1 tokens, and the base has \d+: resize the base",
    "foreign": r"does not fit its base .*other: \S+mlp\S+ has the shape \[\S+ \d+\] in the adapter, and \[.*\] in the ",
}


def load_to_train(path: str) -> Any:
    return load_adapter(path, {"dtype": "float32", "device_map": None})


@pytest.mark.parametrize("kind", MISFITS)
@pytest.mark.parametrize("load", [LocalPolicy, load_to_train])
def test_an_adapter_that_does_not_fit_its_base_is_refused_in_one_sentence(
    made_elsewhere: dict[str, Path], kind: str, load: Callable[[str], Any]
) -> None:
    with pytest.raises(UserError, match=MISFITS[kind]) as caught:
        load(str(made_elsewhere[kind]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("kind", MISFITS)
def test_nor_is_it_published(made_elsewhere: dict[str, Path], tmp_path: Path, kind: str, merged: bool) -> None:
    with pytest.raises(UserError, match=r"has the shape \[") as caught:
        publish(made_elsewhere[kind], tmp_path / "out", base_id="me/base", merged=merged)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
