"""The model card: what the Hub reads (model-index) and what people read, from the run's own files."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rise_train import __version__
from synthesis.errors import UserError
from synthesis.records import Json


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


def model_card(lineage: Lineage, *, name: str, base_id: str | None, is_adapter: bool) -> str:
    """The card as Markdown with the Hub's YAML header, model-index with intervals included.

    Args:
        name: repository or folder name.
        base_id: Hub id of the base, where it has one.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    arms, data = lineage.ablation.get("arms", {}), lineage.ablation.get("data", {})
    template = Environment(loader=PackageLoader("rise_train", "."), undefined=StrictUndefined).get_template(
        "card.md.jinja"
    )
    body = template.render(
        name=name.split("/")[-1],
        repo_id=name,
        kind="An adapter (LoRA)" if is_adapter else "A language model",
        adapter=is_adapter,
        base_id=base_id,
        version=__version__,
        stages=" then ".join(lineage.stages[1:]),
        metrics=lineage.metrics(),
        parent=arms.get(lineage.arm, {}).get("from"),
        n_tasks=arms[lineage.arm]["metrics"]["acc_task"]["n"] if lineage.arm in arms else 0,
        split=data.get("split", "test"),
        commands=[arms[stage]["command"] for stage in lineage.stages if "command" in arms[stage]],
        servers=sorted(lineage.run.get("servers", {}).items()),
        data_hash=data.get("hash"),
        rows=_rows(data),
    )
    return f"---\n{_header(lineage, name, base_id, is_adapter)}\n---\n\n{body}"


def _header(lineage: Lineage, name: str, base_id: str | None, is_adapter: bool) -> str:
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
        )
        for metric in lineage.metrics()
    ]
    extra: dict[str, Any] = {"base_model_relation": "adapter" if is_adapter else "finetune"} if base_id else {}
    data = ModelCardData(
        base_model=base_id,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["tool-calling", "function-calling", "mcp", "rise-train"],
        model_name=name.split("/")[-1] if results else None,
        eval_results=results or None,
        **extra,
    )
    return str(data.to_yaml())


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
