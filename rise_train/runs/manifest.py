"""What a training stage leaves beside its weights: what it was, from what, on what; and how it is found again.

`rise_run.json` is written when training starts and says what the folder is for; `rise_manifest.json` is written last,
so that its presence means "finished". `rise_probe.json` holds eight rows as token ids with their log-probabilities
under the finished model: the fingerprint by which the next stage proves that its reference is this model.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rise_train.models.loading import ProbeRow, base_of, is_adapter, log_probs, read_split
from rise_train.runs.file_hash import hash_files
from synthesis.errors import UserError
from synthesis.json_file import write_json
from synthesis.seeds import digest

RUN, MANIFEST, PROBE, HISTORY = "rise_run.json", "rise_manifest.json", "rise_probe.json", "log_history.json"
PROBE_ROWS = 8


@dataclass(frozen=True)
class Run:
    """One training in its output folder."""

    folder: Path
    stage: str
    parent: str
    settings: dict[str, Any]
    """Every recipe field that differs from its default and has a say in the result."""
    data_hash: str
    parent_hash: str
    started: float = field(default_factory=time.monotonic)

    @property
    def config_hash(self) -> str:
        """Equal for two runs that must give the same model."""
        return digest(self.stage, self.settings, self.data_hash, self.parent_hash)

    @property
    def finished(self) -> bool:
        """Whether this very training has been finished in this folder."""
        return (self.folder / MANIFEST).is_file()

    def checkpoint(self) -> str | None:
        """The newest whole checkpoint to go on from; one that a kill left half written is passed over."""
        found = [(int(p.name.split("-")[1]), p) for p in self.folder.glob("checkpoint-*") if p.name[11:].isdigit()]
        for _, path in sorted(found, reverse=True):
            try:
                json.loads((path / "trainer_state.json").read_text())
            except (OSError, ValueError):
                continue
            return str(path)
        return None


def open_run(stage: str, settings: dict[str, Any], data_args: Any, model_args: Any, training_args: Any) -> Run:
    """Claim the output folder for this training, or find the same one in it.

    Raises `UserError` when the folder holds a training with other settings, data or parent: going on would mix two.
    """
    table = "sft" if stage == "sft" else "preference"
    parent = model_args.model_name_or_path
    run = Run(
        folder=Path(training_args.output_dir),
        stage=stage,
        parent=parent,
        settings=settings,
        data_hash=hash_data(Path(data_args.dataset_name), table, data_args.dataset_train_split),
        parent_hash=hash_model(parent),
    )
    claim = {"stage": stage, "settings": settings, "data_hash": run.data_hash, "parent_hash": run.parent_hash}
    claim = json.loads(json.dumps(claim))
    path = run.folder / RUN
    if path.is_file():
        there = json.loads(path.read_text())
        changed = [k for k in ("stage", "data_hash", "parent_hash") if there[k] != claim[k]]
        both = {**there["settings"], **settings}
        changed += [k for k in sorted(both) if there["settings"].get(k) != claim["settings"].get(k)]
        if changed:
            raise UserError(
                f"output_dir: {run.folder} holds a training with another {', '.join(changed)}; "
                "choose another output_dir or delete that folder"
            )
    elif training_args.process_index == 0:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, claim)
    return run


def inherit(run: Run, tokenizer: Any) -> None:
    """Hold this stage to what the one before it settled: the chat template, which decides what every token means.

    A folder that no stage of ours has made settles nothing. Raises `UserError` where the templates differ.
    """
    path = Path(run.parent) / MANIFEST
    before = json.loads(path.read_text()).get("template") if path.is_file() else None
    if before not in (None, digest(tokenizer.chat_template)):
        raise UserError(
            f"model_name_or_path: {run.parent} was trained with another chat template than its tokenizer has now; "
            "put chat_template.jinja of its training back, or train that stage again"
        )


def hash_data(dataset: Path, table: str, split: str) -> str:
    """Hash of the rows on disk of one split; `UserError` where there are none."""
    folder = dataset / table / split
    files = list(folder.glob("*.arrow"))
    if not files:
        read_split(dataset, table, split)  # says in one sentence what is missing
        raise UserError(f"dataset_name: {folder} holds no arrow file")
    return hash_files(folder, files)


def hash_model(path: str) -> str:
    """Identity of a model: of its weights for a local folder, an adapter with its base; of its name for the Hub's."""
    folder = Path(path)
    if not folder.is_dir():
        return digest(path)
    own = hash_files(folder, [*folder.glob("*.safetensors"), *folder.glob("*config.json")])
    return digest(own, hash_model(base_of(path))) if is_adapter(path) else own


def probe_rows(encoded: list[Any]) -> list[ProbeRow]:
    """The rows of the probe: the first eight conversations that were trained on, as `masking.Encoded`."""
    return [ProbeRow(f"row-{i}", e.input_ids, e.labels) for i, e in enumerate(encoded[:PROBE_ROWS])]


def pair_probe_rows(pairs: list[Any]) -> list[ProbeRow]:
    """Probe rows from preference pairs (`check.Pair`): the first eight different chosen turns."""
    answers = dict.fromkeys((tuple(p.prompt_ids), tuple(p.chosen_ids)) for p in pairs)
    return [
        ProbeRow(f"turn-{i}", [*prompt, *chosen], [-100] * len(prompt) + [*chosen])
        for i, (prompt, chosen) in enumerate(list(answers)[:PROBE_ROWS])
    ]


def write_probe(folder: Path, rows: list[ProbeRow], scores: list[float]) -> dict[str, float]:
    """Store the rows and their log-probabilities; returns id -> log-probability."""
    write_json(folder / PROBE, [{**asdict(r), "log_prob": s} for r, s in zip(rows, scores, strict=True)], indent=None)
    return {row.id: score for row, score in zip(rows, scores, strict=True)}


def read_probe(folder: str) -> tuple[list[ProbeRow], list[float]] | None:
    """(rows, log-probabilities) that a finished stage left in its folder, or None if it left none."""
    path = Path(folder) / PROBE
    if not path.is_file():
        return None
    stored = json.loads(path.read_text())
    return [ProbeRow(r["id"], r["input_ids"], r["labels"]) for r in stored], [r["log_prob"] for r in stored]


def finish(
    run: Run, trainer: Any, summary: dict[str, Any], rows: list[ProbeRow], compute: dict[str, Any], **facts: Any
) -> Path:
    """Write history, probe and, last, the manifest. `summary` is the check's counts, `compute` what the training cost.

    All ranks must call it; one writes.
    """
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    scores = log_probs(trainer.accelerator.unwrap_model(trainer.model), rows)
    if trainer.args.process_index == 0:
        write_json(run.folder / HISTORY, history, allow_nan=True)
        (run.folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, and nothing reads it
        manifest = {
            "stage": run.stage,
            "config_hash": run.config_hash,
            "settings": run.settings,
            "parent": run.parent,
            "base": base_of(run.parent),
            "adapter": is_adapter(str(run.folder)),
            "parent_hash": run.parent_hash,
            "data_hash": run.data_hash,
            "data": summary,
            **facts,
            "template": digest(trainer.processing_class.chat_template),
            "max_length": trainer.args.max_length,
            "seed": trainer.args.seed,
            "data_seed": trainer.args.data_seed,
            "final_loss": losses[-1] if losses else None,
            "steps": trainer.state.global_step,
            "compute": {**compute, "seconds": round(time.monotonic() - run.started, 1)},
            "probe": write_probe(run.folder, rows, scores),
            "versions": versions(),
        }
        write_json(run.folder / MANIFEST, manifest)
    trainer.accelerator.wait_for_everyone()
    return run.folder / MANIFEST


def versions() -> dict[str, str]:
    """Versions of the packages that decide what a training computes."""
    from importlib.metadata import version

    from rise_train import __version__

    names = ("accelerate", "datasets", "peft", "tokenizers", "torch", "transformers", "trl")
    return {"rise-train": __version__, **{name: version(name) for name in names}}
