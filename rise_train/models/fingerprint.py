"""How a model is known again: by the hash of its files, and by its log-probabilities of rows that its training left."""

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.policies.adapters import base_of, is_adapter
from rise_train.models.precision import COARSE, EXACT, in_float32, is_scattered, weights_dtype
from rise_train.rows.file_hash import hash_files
from rise_train.rows.masking import NO_LABEL
from synthesis.json_file import write_json
from synthesis.seeds import digest

Scores = list[list[float]]
"""For each row the log-probabilities of its target tokens, in nats."""
MANIFEST, PROBE = "rise_manifest.json", "rise_probe.json"
IDENTITY = ("*.safetensors", "*.bin", "*config.json", "tokenizer.json", "chat_template.jinja")
"""Files that decide what a model computes of which text."""
PROBE_ROWS = 8
UNIT_ROUNDOFF = {"bfloat16": 2.0**-9, "float16": 2.0**-12}
"""The largest relative error of a rounded weight."""
ROUNDED = 3.0
"""How much more than random errors of the weights, as large as rounding makes them, a rounded model may be off by."""


@dataclass(frozen=True)
class ProbeRow:
    """A fixed row whose log-probability identifies a model: token ids and labels (-100 where without loss)."""

    id: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Probe:
    """Rows with the log-probabilities that a model gave their target tokens."""

    rows: list[ProbeRow]
    scores: Scores
    dtype: str
    """In which dtype its weights were."""
    exact: bool
    """Computed in float32, not from weights that were divided among processes."""

    def sums(self) -> dict[str, float]:
        """Row id -> log-probability of all its target tokens."""
        return {row.id: sum(scores) for row, scores in zip(self.rows, self.scores, strict=True)}


def log_probs(model: Any, rows: list[ProbeRow]) -> Scores:
    """Log-probabilities of each row's target tokens, in float32 where the model can be widened (`models.precision`).

    One row a forward pass, so that padding plays no part; logits are made for the target tokens alone.
    """
    with nullcontext() if is_scattered(model) else in_float32(model):
        return scores_as_stored(model, rows)


def scores_as_stored(model: Any, rows: list[ProbeRow]) -> Scores:
    """`log_probs` in the precision that the model has by itself."""
    import torch

    training = model.training
    model.eval()
    found = []
    with torch.no_grad():
        for row in rows:
            targets = [i for i, label in enumerate(row.labels) if i and label != NO_LABEL]
            ids = torch.tensor([row.input_ids], device=model.device)
            places = torch.tensor(targets, device=model.device)
            logits = model(input_ids=ids, logits_to_keep=places - 1, use_cache=False).logits[0]
            found.append(logits.float().log_softmax(-1).gather(-1, ids[0, places, None])[:, 0].tolist())
    model.train(training)
    return found


def reference_log_probs(trainer: Any, rows: list[ProbeRow]) -> Scores:
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


def widest_gap(left: Scores, right: Scores) -> float:
    """The largest difference of one token's log-probability, in nats; infinite where one is no number."""
    gaps = [abs(a - b) for a, b in _tokens(left, right)]
    return max(gaps) if all(map(math.isfinite, gaps)) else math.inf


def mean_gap(left: Scores, right: Scores) -> float:
    """The root mean square difference of the tokens' log-probabilities, in nats."""
    pairs = _tokens(left, right)
    return math.sqrt(sum((a - b) ** 2 for a, b in pairs) / len(pairs))


def _tokens(left: Scores, right: Scores) -> list[tuple[float, float]]:
    pairs = zip(left, right, strict=True)
    return [both for ours, theirs in pairs for both in zip(ours, theirs, strict=True)]


def is_same(left: Scores, right: Scores, model: Any) -> bool:
    """Whether two `log_probs`, both taken within the process that holds `model`, are of the same weights."""
    if is_scattered(model) and weights_dtype(model) != "float32":
        return mean_gap(left, right) <= COARSE
    return widest_gap(left, right) <= EXACT


def is_model_of(model: Any, scores: Scores, probe: Probe) -> bool:
    """Whether `model`, which gives the probe's rows these `scores` (`log_probs`), is the model that left the probe.

    Float32 runs of the same weights agree within `EXACT`. Where one side had its weights in 16 bits and the other had
    not, the measure is what rounding them changes in this very model: `ROUNDED` times that is allowed.
    """
    here, there = weights_dtype(model), probe.dtype
    if is_scattered(model) or (probe.exact and here == there):
        return is_same(scores, probe.scores, model)
    return mean_gap(scores, probe.scores) <= EXACT + ROUNDED * _rounding(model, probe.rows, {here, there})


def _rounding(model: Any, rows: list[ProbeRow], dtypes: set[str]) -> float:
    """What rounding all weights to the coarser of the dtypes changes in the log-probabilities, root mean square."""
    with in_float32(model, jitter=max(UNIT_ROUNDOFF.get(dtype, 0.0) for dtype in dtypes)):
        shaken = scores_as_stored(model, rows)
    return mean_gap(shaken, log_probs(model, rows))


def hash_model(path: str) -> str:
    """Identity of a model: of its weights for a local folder, an adapter with its base; of its name for the Hub's."""
    folder = Path(path)
    if not folder.is_dir():
        return digest(path)
    files = [path for pattern in IDENTITY for path in folder.glob(pattern)]
    own = hash_files(folder, files)
    return digest(own, hash_model(base_of(path))) if is_adapter(path) else own


def probe_rows(encoded: Sequence[Any]) -> list[ProbeRow]:
    """The rows of the probe: the first eight conversations that were trained on, as `masking.Encoded`."""
    return [ProbeRow(f"row-{i}", e.input_ids, e.labels) for i, e in enumerate(encoded[:PROBE_ROWS])]


def group_probe_rows(groups: Iterable[Any]) -> list[ProbeRow]:
    """Probe rows from preference groups (`rows.groups.Group`): the first eight different right answers."""
    answers: dict[tuple[int, ...], ProbeRow] = {}
    for group in groups:
        ids = [*group.prompt_ids, *group.chosen_ids]
        labels = [NO_LABEL] * len(group.prompt_ids) + [*group.chosen_ids]
        answers.setdefault(tuple(ids), ProbeRow(f"turn-{len(answers)}", ids, labels))
        if len(answers) == PROBE_ROWS:
            break
    return list(answers.values())


def write_probe(folder: Path, probe: Probe) -> None:
    """Store the probe beside the model."""
    write_json(folder / PROBE, asdict(probe), indent=None)


def read_probe(folder: str) -> Probe | None:
    """The probe that a finished stage left in its folder, or None if it left none."""
    path = Path(folder) / PROBE
    if not path.is_file():
        return None
    stored = json.loads(path.read_text())
    return Probe(**{**stored, "rows": [ProbeRow(**row) for row in stored["rows"]]})


def take_probe(model: Any, rows: list[ProbeRow]) -> Probe:
    """The probe of a model as it is."""
    return Probe(rows, log_probs(model, rows), weights_dtype(model), exact=not is_scattered(model))
