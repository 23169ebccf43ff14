"""The model card: what the Hub reads of it, and that people can make the model again from what it says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from rise_train.publishing.model_card import Lineage, model_card

SETTINGS = {"learning_rate": 1e-4, "loss_type": ["sigmoid", "sft"], "pad_to_multiple_of": None, "bf16": False}
RATE = {"value": 0.8125, "low": 0.75, "high": 0.86, "n": 160}


@pytest.fixture
def lineage() -> Lineage:
    """A run with both stages: one metric, three arms, two servers."""
    arms: dict[str, Any] = {
        "raw": {"metrics": {"acc_task": {**RATE, "value": 0.1}}},
        "sft": {"stage": "sft", "from": "raw", "command": "accelerate launch -m rise_train.sft --config sft.yaml"},
        "sft_dpo": {"stage": "dpo", "from": "sft", "command": "accelerate launch -m rise_train.dpo --config dpo.yaml"},
    }
    arms["sft"]["metrics"] = arms["sft_dpo"]["metrics"] = {"acc_task": RATE}
    data = {"split": "test", "hash": "abc123", "rows": {"sft": {"train": 90}, "preference": {"train": 70}}}
    tests = [{"a": "sft_dpo", "b": "sft", "metric": "acc_task", "verdict": "better"}]
    versions = {"torch": "2.13.0", "trl": "1.16.0"}
    trainings = [
        {"stage": "sft", "parent": "base", "settings": {"seed": 3}, "steps": 10, "final_loss": 0.5},
        {"stage": "dpo", "parent": "RUN/models/sft", "settings": SETTINGS, "steps": 20, "versions": versions},
    ]
    run = {"config": {"seed": 0}, "servers": {"time": "1.2", "shop": "0.1"}, "licenses": {"time": "MIT"}}
    return Lineage("NAME/BASE", trainings, run, "sft_dpo", {"arms": arms, "data": data, "tests": tests})


def test_the_hub_reads_every_metric_with_its_interval(lineage: Lineage) -> None:
    card = ModelCard(model_card(lineage, name="NAME/MODEL", base_id="NAME/BASE", form="adapter"))
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("acc_task", 0.8125)
    assert result.metric_name == "acc_task (95% interval 0.750 to 0.860, n=160)"
    assert result.metric_args == {"confidence": 0.95, "low": 0.75, "high": 0.86, "n": 160}
    assert (result.dataset_split, result.dataset_revision) == ("test", "abc123")
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()


@pytest.mark.parametrize(
    ("form", "relation", "library"),
    [("adapter", "adapter", "peft"), ("merged", "finetune", "transformers"), ("full", "finetune", "transformers")],
)
def test_the_hub_knows_how_it_relates_to_its_base(lineage: Lineage, form: Any, relation: str, library: str) -> None:
    card = ModelCard(model_card(lineage, name="NAME/MODEL", base_id="NAME/BASE", form=form))
    facts = card.data.to_dict()
    assert (facts["base_model"], facts["base_model_relation"], facts["library_name"]) == (
        "NAME/BASE",
        relation,
        library,
    )
    assert ("PeftModel" in card.text) == (form == "adapter")
    nameless = ModelCard(model_card(lineage, name="MODEL", base_id=None, form="full")).data.to_dict()
    assert not {"base_model", "base_model_relation"} & set(nameless)


def test_the_card_says_data_commands_and_reference(lineage: Lineage) -> None:
    text = model_card(lineage, name="NAME/MODEL", base_id="NAME/BASE", form="adapter")
    assert "| time | 1.2 | MIT |" in text
    assert "| shop | 0.1 | not stated |" in text
    assert "| `acc_task` | 81.2 % | 75.0 to 86.0 % | 160 | 10.0 % | better |" in text
    assert "accelerate launch -m rise_train.sft --config sft.yaml\naccelerate launch -m rise_train.dpo" in text
    assert "The reference of DPO is the model that this stage started from, `RUN/models/sft`;" in text
    assert "torch 2.13.0, trl 1.16.0" in text
    assert "10 steps, last loss 0.5000" in text
    for facts, said in (
        ({"name": "base", "model": "RUN/base"}, "base, `RUN/base`"),
        ({"name": "model", "model": "RUN/other"}, "`RUN/other`"),
        ({"name": "RUN/other", "model": "RUN/other"}, "`RUN/other`"),  # as it was written at first
    ):
        lineage.trainings[1]["reference"] = facts
        assert f"The reference of DPO is {said};" in model_card(lineage, name="M", base_id=None, form="full")
    lineage.trainings.insert(1, {"stage": "merge", "parent": "RUN/models/sft", "settings": {}})
    lineage.ablation = {}
    assert lineage.commands()[1] == "# RUN/models/sft was merged into its base"
    assert "merge.yaml" not in model_card(lineage, name="M", base_id=None, form="full")


def test_a_recipe_of_the_card_trains_with_the_same_settings(lineage: Lineage, tmp_path: Path) -> None:
    from rise_train.runs.recipe import parse, settings

    text = model_card(lineage, name="NAME/MODEL", base_id="NAME/BASE", form="adapter")
    recipe = re.findall(r"`dpo.yaml`.*?```yaml\n(.*?)```", text, re.DOTALL)[0]
    assert yaml.safe_load(recipe) == SETTINGS
    (tmp_path / "dpo.yaml").write_text(recipe)
    lineage.ablation = {}
    (command,) = [line for line in lineage.commands() if "rise_train.dpo" in line]
    assert command.startswith("accelerate launch -m rise_train.dpo --config dpo.yaml --model_name_or_path RUN/models/")
    arguments = command.split("rise_train.dpo ")[1].replace("dpo.yaml", str(tmp_path / "dpo.yaml")).split()
    used = settings(*parse("dpo", arguments))
    assert {name: used[name] for name in SETTINGS} == SETTINGS


def test_a_lone_model_has_a_card_too() -> None:
    text = model_card(Lineage(), name="MODEL", base_id=None, form="full")
    assert "model-index" not in text
    assert "## Evaluation" not in text
    assert "## How it was made" not in text
    assert json.dumps({}) not in text
