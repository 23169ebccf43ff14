"""The model card: what the Hub reads (model-index) and what people read, from the run's own files."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rise_train import __version__
from synthesis.errors import UserError
from synthesis.records import Json

Form = Literal["adapter", "merged", "full"]
KINDS: dict[Form, str] = {
    "adapter": "An adapter (LoRA)",
    "merged": "A language model (a LoRA adapter merged into its base)",
    "full": "A language model",
}


@dataclass
class Lineage:
    """All that is known of how a model came to be: its training manifests, the run's data, the arm's scores."""

    base: str | None = None
    trainings: list[dict[str, Json]] = field(default_factory=list)
    """`rise_manifest.json` of each stage, the first stage first."""
    run: dict[str, Json] = field(default_factory=dict)
    """`manifest.json` of the run directory."""
    arm: str | None = None
    ablation: dict[str, Json] = field(default_factory=dict)

    @classmethod
    def read(cls, model: Path, run: Path | None, arm: str | None) -> "Lineage":
        """Gather it from the model's folder, those of the stages before it, and the run.

        Raises:
            UserError: one of the files is not JSON.
        """
        lineage = cls(arm=arm)
        if run is not None:
            lineage.run = _read(run / "manifest.json")
            lineage.ablation = _read(run / "ablation.json")
        here: Path | None = model
        while here is not None and (manifest := _read(here / "rise_manifest.json")):
            lineage.trainings.insert(0, manifest)
            lineage.base = manifest.get("base") or lineage.base
            parent = manifest.get("parent")
            here = Path(parent) if parent and Path(parent) != here else None
        return lineage

    @property
    def content(self) -> dict[str, Json]:
        """What lineage.json holds."""
        arms = self.ablation.get("arms", {})
        return {
            "rise_train": __version__,
            "arm": self.arm,
            "trainings": self.trainings,
            "data": self.run,
            "scores": {name: arms[name] for name in self.stages},
            "tests": [t for t in self.ablation.get("tests", []) if t["a"] == self.arm],
        }

    def commands(self) -> list[str]:
        """The commands that trained it, one a stage: those that the run recorded, else made from the manifests."""
        arms = self.ablation.get("arms", {})
        recorded = [arms[stage]["command"] for stage in self.stages if "command" in arms[stage]]
        return recorded or [_command(manifest) for manifest in self.trainings]

    def servers(self) -> list[tuple[str, str, str]]:
        """(name, version, licence) of each server that the data was made with."""
        licences = self.run.get("licenses", {})
        return [(name, v, licences.get(name, "")) for name, v in sorted(self.run.get("servers", {}).items())]

    @property
    def stages(self) -> list[str]:
        """Names of the arms on the way from the base to this one."""
        arms, arm = self.ablation.get("arms", {}), self.arm
        names: list[str] = []
        while arm is not None and arm in arms:
            names.insert(0, arm)
            arm = arms[arm].get("from")
        return names

    def metrics(self) -> list[dict[str, Json]]:
        """One entry a metric: name, value, low, high, n, the base model's value, and the verdict against the parent."""
        arms = self.ablation.get("arms", {})
        if self.arm not in arms:
            return []
        mine, parent = arms[self.arm], arms[self.arm].get("from")
        verdicts = {t["metric"]: t["verdict"] for t in self.content["tests"] if t["b"] == parent}
        return [
            {"name": name, **rate, "raw": arms["raw"]["metrics"][name]["value"], "verdict": verdicts.get(name, "")}
            for name, rate in mine["metrics"].items()
        ]


def model_card(lineage: Lineage, *, name: str, base_id: str | None, form: Form, weights: str | None = None) -> str:
    """The card as Markdown with the Hub's YAML header, model-index with intervals included.

    Args:
        name: repository or folder name.
        base_id: Hub id of the base, where it has one.
        form: an adapter, one merged into its base, or a model of its own.
        weights: what the base's weights were in training, where that was a copy of `base_id`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    arms, data = lineage.ablation.get("arms", {}), lineage.ablation.get("data", {})
    template = Environment(loader=PackageLoader("rise_train.publishing", "."), undefined=StrictUndefined).get_template(
        "model_card.md.jinja"
    )
    body = template.render(
        name=name.split("/")[-1],
        repo_id=name,
        kind=KINDS[form],
        adapter=form == "adapter",
        base_id=base_id,
        weights=weights,
        version=__version__,
        stages=" then ".join(lineage.stages[1:]),
        metrics=lineage.metrics(),
        parent=arms.get(lineage.arm, {}).get("from"),
        n_tasks=arms[lineage.arm]["metrics"]["acc_task"]["n"] if lineage.arm in arms else 0,
        split=data.get("split", "test"),
        trainings=[_training(manifest) for manifest in lineage.trainings if manifest["stage"] != "merge"],
        commands=lineage.commands(),
        servers=lineage.servers(),
        synthesis=json.dumps(lineage.run.get("config", {}), ensure_ascii=False),
        data_hash=data.get("hash") or next((m["data_hash"] for m in lineage.trainings if "data_hash" in m), None),
        rows=_rows(data),
    )
    return f"---\n{_header(lineage, name, base_id, form)}\n---\n\n{body}"


def _header(lineage: Lineage, name: str, base_id: str | None, form: Form) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Tool calling",
            dataset_type="rise-train",
            dataset_name="held-out requests",
            dataset_split=lineage.ablation["data"]["split"],
            dataset_revision=lineage.ablation["data"]["hash"],
            metric_type=metric["name"],
            metric_value=round(metric["value"], 4),
            metric_name=f"{metric['name']} (95% interval {metric['low']:.3f} to {metric['high']:.3f}, n={metric['n']})",
            metric_args={"confidence": 0.95, "low": metric["low"], "high": metric["high"], "n": metric["n"]},
        )
        for metric in lineage.metrics()
    ]
    # The Hub's third relation, "merge", is for several models that are made one: an adapter merged into its own base is
    # a fine-tune of it.
    relation: dict[str, Any] = {"base_model_relation": "adapter" if form == "adapter" else "finetune"}
    data = ModelCardData(
        base_model=base_id,
        library_name="peft" if form == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["tool-calling", "function-calling", "mcp", "rise-train"] + ["lora"] * (form != "full"),
        model_name=name.split("/")[-1] if results else None,
        eval_results=results or None,
        **(relation if base_id else {}),
    )
    return str(data.to_yaml())


def _training(manifest: dict[str, Json]) -> dict[str, Json]:
    """A stage as the card shows it; `recipe` is YAML that `rise_train.STAGE --config` reads."""
    import yaml

    loss = manifest.get("final_loss")
    return {
        "stage": manifest["stage"],
        "reference": _reference(manifest),
        "recipe": yaml.safe_dump(manifest.get("settings", {}), sort_keys=False).strip(),
        "steps": manifest.get("steps", "?"),
        "loss": f"{loss:.4f}" if isinstance(loss, float) else "?",
        "versions": ", ".join(f"{package} {found}" for package, found in manifest.get("versions", {}).items()),
    }


def _reference(manifest: dict[str, Json]) -> str:
    """Which model was the reference; before the recipe could say it, it was the one that training started from."""
    default = {"name": "the model that this stage started from", "model": manifest.get("parent", "not recorded")}
    chosen = manifest.get("reference", default)
    named = chosen["name"] in ("model", chosen["model"])
    return f"`{chosen['model']}`" if named else f"{chosen['name']}, `{chosen['model']}`"


def _rows(data: dict[str, Json]) -> str:
    rows = data.get("rows")
    if not rows:
        return ""
    return f"{rows['sft']['train']} requests and {rows['preference']['train']} groups of deviations to train on"


def _read(path: Path) -> dict[str, Json]:
    if not path.is_file():
        return {}
    try:
        content: Any = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: expected JSON ({error})") from None
    return dict(content)


def _command(manifest: dict[str, Json]) -> str:
    """The command of a training, its settings in a recipe as the card shows it; a merge is part of one."""
    if manifest["stage"] == "merge":
        return f"# {manifest['parent']} was merged into its base"
    places = f"--model_name_or_path {manifest['parent']} --dataset_name RUN/dataset --output_dir MODEL"
    return f"accelerate launch -m rise_train.{manifest['stage']} --config {manifest['stage']}.yaml {places}"
