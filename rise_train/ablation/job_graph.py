"""The jobs of an ablation: what each is, what it needs, how its command reads, and when a finished one still holds."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from rise_train.ablation.arms import RAW, AblationConfig, Arm
from rise_train.ablation.job_runner import Job, Runner
from rise_train.models.fingerprint import MANIFEST
from rise_train.rows.file_hash import hash_files
from rise_train.runs.processes import read_accelerate
from synthesis.errors import UserError
from synthesis.seeds import digest

PLACE = "ablation"
"""Folder under `output_dir` for models, results, logs and job records."""


class Layout:
    """Where the parts of one ablation are kept."""

    def __init__(self, output_dir: Path) -> None:
        self.root = output_dir
        self.work = output_dir / PLACE

    def model(self, arm: str, seed: int) -> Path:
        """Folder of a trained arm."""
        return self.work / "models" / f"seed{seed}" / arm

    def mined(self, arm: str, seed: int) -> Path:
        """Dataset of an arm that trains on mined negatives."""
        return self.work / "mined" / f"seed{seed}" / arm

    def result(self, arm: str, seed: int) -> Path:
        """Result file of an arm; `raw` has one for all seeds."""
        folder = self.work / "eval"
        return folder / f"{RAW}.json" if arm == RAW else folder / f"seed{seed}" / f"{arm}.json"

    def relative(self, path: Path) -> str:
        """`path` as ablation.json names it: without what only this machine knows."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name


class Plan:
    """All jobs of an ablation, with the keys that tell whether a finished one still holds."""

    def __init__(self, config: AblationConfig, layout: Layout, runner: Runner) -> None:
        self.config, self.layout, self.runner = config, layout, runner
        self.data_key = _folder_key(config.dataset, ".arrow")
        self.base_key = (
            _folder_key(Path(config.base), ".safetensors", ".json", ".jinja")
            if Path(config.base).is_dir()
            else digest(config.base)
        )
        self.threads = max(1, len(os.sched_getaffinity(0)) // config.jobs) if hasattr(os, "sched_getaffinity") else 1
        launch = config.accelerate_config
        self.devices = read_accelerate(launch).processes if launch else 1

    def jobs(self) -> list[Job]:
        """Trainings first, so that evaluations fill the gaps that waiting for a parent leaves."""
        pairs = [(arm, seed) for seed in self.config.seeds for arm in self.config.arms]
        trainings = [self.training(arm, seed) for arm, seed in pairs]
        trainings += [self.mining(arm, seed) for arm, seed in pairs if self.config.arms[arm].mine]
        return trainings + [self.evaluation(RAW, 0)] + [self.evaluation(arm, seed) for arm, seed in pairs]

    def mining(self, arm: str, seed: int) -> Job:
        """The job that mines the negatives of `arm`, by the model that it starts from."""
        spec = self.config.arms[arm]
        assert spec.mine is not None
        output = self.layout.mined(arm, seed)
        command = [sys.executable, "-m", "rise_train.cli", "mine", self._model(spec.start, seed)]
        command += [str(self.config.dataset), "--keep", str(spec.mine.keep), "--seed", str(seed)]
        command += ["--own-replies", str(spec.mine.own_replies), "--difficulty", spec.mine.difficulty]
        command += ["--limit", str(spec.mine.limit)] if spec.mine.limit else []
        command += ["--batch-size", str(self.config.eval.batch_size)]
        command += ["--max-new-tokens", str(self.config.eval.max_new_tokens), "--output", str(output)]
        return Job(
            name=mine_name(arm, seed),
            label=self._label("mine", arm, seed),
            key=self.mined_key(arm, seed),
            output=output / "mined.json",
            command=lambda: command,
            needs=() if spec.start == RAW else (train_name(spec.start, seed),),
            env=self._env(),
        )

    def training(self, arm: str, seed: int) -> Job:
        """The job that trains `arm`."""
        spec = self.config.arms[arm]
        needs = [train_name(other, seed) for other in (spec.start, spec.match) if other not in (RAW, None)]
        needs += [mine_name(arm, seed)] if spec.mine else []
        return Job(
            name=train_name(arm, seed),
            label=self._label("train", arm, seed),
            key=self.model_key(arm, seed),
            output=self.layout.model(arm, seed) / MANIFEST,
            command=lambda: self._train_command(arm, seed),
            needs=tuple(needs),
            env=self._env(),
            devices=self.devices,
        )

    def evaluation(self, arm: str, seed: int) -> Job:
        """The job that scores `arm`."""
        options = self.config.eval
        command = [sys.executable, "-m", "rise_train.cli", "eval", self._model(arm, seed)]
        command += ["--dataset", str(self.config.dataset), "--split", options.split]
        command += ["--batch-size", str(options.batch_size), "--max-new-tokens", str(options.max_new_tokens)]
        command += ["--limit", str(options.limit)] if options.limit else []
        command += ["--half", options.half] if options.half else []
        command += ["--json", str(self.layout.result(arm, seed))]
        return Job(
            name=f"eval/{arm}" if arm == RAW else f"eval/seed{seed}/{arm}",
            label=self._label("eval", arm, seed),
            key=digest("eval by difficulty", self.model_key(arm, seed), self.data_key, *self._evaluated()),
            output=self.layout.result(arm, seed),
            command=lambda: command,
            needs=() if arm == RAW else (train_name(arm, seed),),
            env=self._env(),
        )

    def refuse_mixture(self, path: Path) -> None:
        """Stop before anything runs if a trained arm came from something else than what the file now says.

        A folder in which a training only failed, without a checkpoint, is cleared away.
        """
        for seed in self.config.seeds:
            for arm in self.config.arms:
                record, model = self.runner.record(train_name(arm, seed)), self.layout.model(arm, seed)
                if not record or record["key"] == self.model_key(arm, seed):
                    continue
                if (model / MANIFEST).is_file() or any(model.glob("checkpoint-*")):
                    raise UserError(
                        f"{path}: arm {arm} in {model} was trained with another recipe, dataset or base; give another "
                        "output_dir (-o), or --fresh to train every arm again"
                    )
                shutil.rmtree(model, ignore_errors=True)

    def results(self, arm: str) -> list[dict[str, Any]]:
        """What `rise eval` wrote for an arm, one entry a seed."""
        return [json.loads(self.layout.result(arm, seed).read_text()) for seed in self.config.seeds]

    def facts(self, arm: str) -> dict[str, Any]:
        """What ablation.json says of an arm beside its metrics; paths are relative to its folder."""
        seed = self.config.seeds[0]
        result = self.layout.relative(self.layout.result(arm, seed))
        if arm == RAW:
            name = Path(self.config.base).name if Path(self.config.base).is_dir() else self.config.base
            return {"model": name, "result": result, "seconds": 0.0}
        spec, model = self.config.arms[arm], self.layout.model(arm, seed)
        record, compute = self.runner.record(train_name(arm, seed)), read_manifest(model)["compute"]
        return {
            "model": self.layout.relative(model),
            "result": result,
            "stage": spec.stage,
            "from": spec.start,
            "match": spec.match,
            "seconds": compute["seconds"],
            "compute": compute,
            "command": self._portable(record["command"]),
        }

    def data(self) -> dict[str, Any]:
        """What ablation.json says of the dataset: counts of rows, and its hash."""
        from datasets import load_from_disk

        folder = self.config.dataset
        rows = {
            part: {split: len(data) for split, data in load_from_disk(str(folder / part)).items()}
            for part in ("sft", "preference")
        }
        options = self.config.eval
        return {
            "dataset": self.layout.relative(folder),
            "hash": self.data_key,
            "base_hash": self.base_key,
            "rows": rows,
            "split": options.split,
            "half": options.half,
            "limit": options.limit,
        }

    def _portable(self, command: list[str]) -> str:
        """A training's command as another machine could run it: the launcher's options and our folders left out."""
        stage = next(i for i, word in enumerate(command) if word.startswith("rise_train."))
        words = ["accelerate", "launch", "-m", *command[stage:]]
        known = {str(self.config.dataset): "RUN/dataset", str(self.layout.root): "RUN"}
        return " ".join(_relative(word, known) for word in words)

    def model_key(self, arm: str | None, seed: int) -> str:
        """Hash of all that decides what `arm` becomes: base, data, recipe, overrides, seed and the arms before it."""
        if arm is None:
            return ""
        if arm == RAW:
            return self.base_key
        spec = self.config.arms[arm]
        recipe = yaml.safe_load(spec.config.read_text())
        before = [self.model_key(spec.start, seed), self.model_key(spec.match, seed)]
        before += [self.mined_key(arm, seed)] if spec.mine else []
        return digest("train", spec.stage, recipe, spec.overrides, seed, self.data_key, *before)

    def mined_key(self, arm: str, seed: int) -> str:
        """Hash of all that decides which negatives `arm` is given."""
        spec = self.config.arms[arm]
        assert spec.mine is not None
        limit = self.config.eval.max_new_tokens
        return digest("mine", spec.mine.model_dump(), limit, seed, self.data_key, self.model_key(spec.start, seed))

    def _evaluated(self) -> list[Any]:
        """What decides which tasks are scored and how."""
        options = self.config.eval
        half = [options.half] if options.half else []
        return [options.split, options.limit, options.max_new_tokens, *half]

    def _label(self, task: str, arm: str, seed: int) -> str:
        return f"{task} {arm}" + (f", seed {seed}" if len(self.config.seeds) > 1 and arm != RAW else "")

    def _model(self, arm: str, seed: int) -> str:
        return self.config.base if arm == RAW else str(self.layout.model(arm, seed))

    def _env(self) -> dict[str, str]:
        return {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}

    def _train_command(self, arm: str, seed: int) -> list[str]:
        spec, launch = self.config.arms[arm], self.config.accelerate_config
        command = [sys.executable]
        if launch:  # alone, the launcher would only start one process, after imports of its own
            command += ["-m", "accelerate.commands.launch", "--quiet", "--config_file", str(launch)]
            command += ["--num_cpu_threads_per_process", str(self.threads)]
            command += ["--gpu_ids", "all", "--main_process_port", "0"]  # all that it is shown; a port of its own
        command += ["-m", f"rise_train.{spec.stage}"]
        command += ["--config", str(spec.config), "--model_name_or_path", self._model(spec.start, seed)]
        dataset = self.layout.mined(arm, seed) if spec.mine else self.config.dataset
        command += ["--dataset_name", str(dataset), "--seed", str(seed)]
        overrides = dict(spec.overrides)
        if spec.match:
            overrides["train_tokens"] = self._matching_tokens(spec, seed)
        for field, value in overrides.items():
            command += [f"--{field}", *(str(v) for v in (value if isinstance(value, list) else [value]))]
        # What is worth it is published once, by `rise publish`; a recipe of its own would send every arm.
        return [*command, "--push_to_hub", "false", "--output_dir", str(self.layout.model(arm, seed))]

    def _matching_tokens(self, spec: Arm, seed: int) -> int:
        """Tokens of SFT that cost as much as the matched dpo stage did, by the tokens that it processed."""
        assert spec.match is not None
        dpo = read_manifest(self.layout.model(spec.match, seed))
        sft = read_manifest(self.layout.model(spec.start, seed))
        return round(cost(dpo) / per_token(sft))


def _relative(word: str, known: dict[str, str]) -> str:
    for place, name in known.items():
        if word.startswith(place):
            return name + word.removeprefix(place)
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def mine_name(arm: str, seed: int) -> str:
    """Name of the job that mines an arm's negatives."""
    return f"mine/seed{seed}/{arm}"


def train_name(arm: str, seed: int) -> str:
    """Name of a training's job and of its log."""
    return f"train/seed{seed}/{arm}"


def read_history(model: Path) -> list[dict[str, Any]]:
    """The trainer's log lines; empty where the model was not trained by us."""
    path = model / "log_history.json"
    return json.loads(path.read_text()) if path.is_file() else []


def read_manifest(model: Path) -> dict[str, Any]:
    """What a finished training left beside its weights."""
    content: dict[str, Any] = json.loads((model / MANIFEST).read_text())
    return content


def cost(manifest: dict[str, Any]) -> float:
    """Floating-point operations of a training, divided by the number of parameters.

    A token costs 2 forward and 4 backward (2 where the weights are frozen, as under an adapter), and 2 more in the
    reference. Attention's part, which grows with the length, is left out on both sides.
    """
    compute = manifest["compute"]
    return float(compute["trained_tokens"] * per_token(manifest) + 2 * compute["reference_tokens"])


def per_token(manifest: dict[str, Any]) -> int:
    """Operations for one trained token and parameter."""
    return 4 if manifest["adapter"] else 6


def _folder_key(folder: Path, *suffixes: str) -> str:
    """Hash of a folder's files with these suffixes, at any depth."""
    return hash_files(folder, (p for p in folder.rglob("*") if p.is_file() and p.suffix in suffixes))
