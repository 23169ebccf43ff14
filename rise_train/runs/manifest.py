"""What a training stage leaves beside its weights: what it was, from what, on what; and how it is found again.

`rise_run.json` is written when training starts and says what the folder is for; `rise_manifest.json` is written last,
so that its presence means "finished". `rise_probe.json` holds eight rows as token ids with their log-probabilities
under the finished model: the fingerprint by which the next stage proves that its reference is this model.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.policies.adapters import base_of, is_adapter
from rise_train.models.fingerprint import MANIFEST, ProbeRow, hash_model, take_probe, write_probe
from rise_train.rows.recipe_rows import hash_parts
from rise_train.runs.recipe import identity, settings
from synthesis.errors import UserError
from synthesis.json_file import write_json
from synthesis.lock import locked
from synthesis.seeds import digest

RUN, HISTORY = "rise_run.json", "log_history.json"


@dataclass(frozen=True)
class Run:
    """One training in its output folder."""

    folder: Path
    stage: str
    parent: str
    settings: dict[str, Any]
    """Every recipe field that differs from its default, for people."""
    identity: dict[str, Any]
    """Those that have a say in the result (`recipe.identity`)."""
    data_hash: str
    parent_hash: str
    started: float = field(default_factory=time.monotonic)

    @property
    def config_hash(self) -> str:
        """Equal for two runs that must give the same model."""
        return digest(self.claim())

    def claim(self) -> dict[str, Any]:
        """What the folder is for; another claim is another training."""
        names = {"data_hash": self.data_hash, "parent_hash": self.parent_hash}
        return {"stage": self.stage, "settings": self.identity, **names}

    @property
    def started_before(self) -> bool:
        """Whether something of a training is in the folder that could be gone on with."""
        return any(any(self.folder.glob(name)) for name in (MANIFEST, "checkpoint-*", "*.safetensors"))

    @property
    def finished(self) -> bool:
        """Whether this very training has been finished in this folder."""
        return (self.folder / MANIFEST).is_file()

    def checkpoint(self) -> str | None:
        """The newest checkpoint to go on from; one that is half written, or has no optimiser, is passed over."""
        found = [(int(p.name.split("-")[1]), p) for p in self.folder.glob("checkpoint-*") if p.name[11:].isdigit()]
        for _, path in sorted(found, reverse=True):
            try:
                json.loads((path / "trainer_state.json").read_text())
            except (OSError, ValueError):
                continue
            if any(path.glob("optimizer*")) or any(path.glob("global_step*")):  # PyTorch's or FSDP's, DeepSpeed's
                return str(path)
        return None


@contextmanager
def claimed(stage: str, data_args: Any, model_args: Any, training_args: Any) -> Iterator[Run]:
    """`open_run` under the folder's lock: no other training writes there meanwhile. All processes must enter it."""
    alone = locked(Path(training_args.output_dir), "training") if training_args.process_index == 0 else nullcontext()
    with alone:
        yield open_run(stage, data_args, model_args, training_args)


def open_run(stage: str, data_args: Any, model_args: Any, training_args: Any) -> Run:
    """Claim the output folder for this training, or find the same one in it. All processes must call it.

    A folder whose training left no checkpoint and no result holds nothing to go on with, so it may be claimed anew. Who
    calls it holds the folder's lock (`synthesis.lock`), so that no such training is still at work.

    Raises `UserError` when the folder holds a training with other settings, data or parent: going on would mix two.
    """
    table = "sft" if stage == "sft" else "preference"
    parent = model_args.model_name_or_path
    run = Run(
        folder=Path(training_args.output_dir),
        stage=stage,
        parent=parent,
        settings=settings(data_args, training_args, model_args),
        identity=json.loads(json.dumps(identity(data_args, training_args, model_args))),
        data_hash=hash_parts(data_args, table, validates=training_args.eval_strategy != "no"),
        parent_hash=hash_model(parent),
    )
    if Path(parent).is_dir() and run.folder.is_dir() and run.folder.samefile(parent):
        raise UserError(f"output_dir: {run.folder} is the model that training starts from; choose another folder")
    with training_args.distributed_state.main_process_first():
        changed = _changed(run)
        if changed and run.started_before:
            raise UserError(
                f"output_dir: {run.folder} holds a training with another {', '.join(changed)}; "
                "choose another output_dir or delete that folder"
            )
        if changed and training_args.process_index == 0:
            run.folder.mkdir(parents=True, exist_ok=True)
            write_json(run.folder / RUN, run.claim())
    return run


def _changed(run: Run) -> list[str]:
    """What the folder's claim says otherwise than the run; everything where there is no claim."""
    path, claim = run.folder / RUN, run.claim()
    if not path.is_file():
        return list(claim)
    there = json.loads(path.read_text())
    changed = [name for name in ("stage", "data_hash", "parent_hash") if there[name] != claim[name]]
    ours, theirs = claim["settings"], there["settings"]
    return changed + [name for name in sorted({*ours, *theirs}) if theirs.get(name) != ours.get(name)]


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


def finish(
    run: Run, trainer: Any, summary: dict[str, Any], rows: list[ProbeRow], compute: dict[str, Any], **facts: Any
) -> Path:
    """Write history, probe and, last, the manifest. `summary` is the check's counts, `compute` what the training cost.

    All ranks must call it; one writes.
    """
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    probe = take_probe(trainer.accelerator.unwrap_model(trainer.model), rows)
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
            "probe": probe.sums(),
            "versions": versions(),
        }
        write_probe(run.folder, probe)
        write_json(run.folder / MANIFEST, manifest)
    trainer.accelerator.wait_for_everyone()
    return run.folder / MANIFEST


def versions() -> dict[str, str]:
    """Versions of the packages that decide what a training computes."""
    from importlib.metadata import version

    from rise_train import __version__

    names = ("accelerate", "datasets", "peft", "tokenizers", "torch", "transformers", "trl")
    return {"rise-train": __version__, **{name: version(name) for name in names}}
