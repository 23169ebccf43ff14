"""How a model is known again: by the hash of its files, and by its log-probabilities of rows that its training left."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rise_train.models.loading import base_of, is_adapter
from synthesis.json_file import write_json
from synthesis.seeds import digest

MANIFEST, PROBE = "rise_manifest.json", "rise_probe.json"
PROBE_ROWS = 8


@dataclass(frozen=True)
class ProbeRow:
    """A fixed row whose log-probability identifies a model: token ids and labels (-100 where without loss)."""

    id: str
    input_ids: list[int]
    labels: list[int]


def log_probs(model: Any, rows: list[ProbeRow]) -> list[float]:
    """Sum of the target tokens' log-probabilities of each row; one row a forward pass, so padding plays no part."""
    import torch

    training = model.training
    model.eval()
    sums = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row.input_ids], device=model.device)
            labels = torch.tensor(row.labels[1:], device=model.device)
            scores = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            picked = scores.gather(-1, labels.clamp(min=0)[:, None])[:, 0]
            sums.append(float(picked[labels != -100].sum()))
    model.train(training)
    return sums


def reference_log_probs(trainer: Any, rows: list[ProbeRow]) -> list[float]:
    """`log_probs` under the model that a DPOTrainer really uses as reference."""
    from peft import PeftModel
    from trl.trainer.utils import use_adapter

    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.ref_model is not None:
        return log_probs(trainer.accelerator.unwrap_model(trainer.ref_model), rows)
    if not isinstance(model, PeftModel):  # precompute_ref_log_probs: the reference was the policy before its first step
        return log_probs(model, rows)
    with use_adapter(model, "ref" if "ref" in model.peft_config else None):
        return log_probs(model, rows)


def same_log_probs(left: list[float], right: list[float], *, exact_dtype: bool) -> bool:
    """Whether two probes are of one model: equal up to rounding, which is coarser below float32."""
    tolerance = 1e-4 if exact_dtype else 2e-2
    return len(left) == len(right) and all(
        abs(a - b) <= tolerance * max(1.0, abs(a)) for a, b in zip(left, right, strict=True)
    )


def hash_model(path: str) -> str:
    """Identity of a model: of its weights for a local folder, an adapter with its base; of its name for the Hub's."""
    folder = Path(path)
    if not folder.is_dir():
        return digest(path)
    own = hash_files(sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")]))
    return digest(own, hash_model(base_of(path))) if is_adapter(path) else own


def hash_files(files: list[Path]) -> str:
    """Hash of the files' contents, in their order."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


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
