"""The file of `rise ablate`: which arms, on which data, with which seeds."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rise_train.runs.yaml_file import read_mapping
from synthesis.errors import UserError

RAW = "raw"
"""Name of the arm that is the base itself; it is always scored."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Mining(_Strict):
    """The negatives of a dpo arm, mined by the model that it starts from; as in `rise mine`."""

    keep: int = Field(default=4, ge=1)
    own_replies: int = Field(default=0, ge=0)
    difficulty: Literal["all", "easy", "hard"] = "all"
    limit: int | None = Field(default=None, ge=1)


class Arm(_Strict):
    """One training stage."""

    stage: Literal["sft", "dpo"]
    config: Path
    """Recipe of the stage."""
    start: str = Field(default=RAW, alias="from")
    """The arm that it starts from."""
    match: str | None = None
    """Train for as many floating-point operations as this dpo arm's stage did, instead of the recipe's epochs."""
    overrides: dict[str, Any] = {}
    """Fields of the recipe that differ in this arm."""
    against: list[str] = []
    """Further arms that it is tested against, beside the one that it starts from."""
    mine: Mining | None = None
    """Train on mined negatives, instead of the dataset's as they are."""


class EvalOptions(_Strict):
    """How the arms are scored; as in `rise eval`."""

    split: str = "test"
    half: Literal["validation", "final"] | None = None
    """Score one half of the split: settings are chosen on "validation", and the table of them is of "final"."""
    limit: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    max_new_tokens: int = Field(default=256, ge=1)


class AblationConfig(_Strict):
    """The file. Paths are relative to it; `load_config` makes them absolute."""

    base: str
    dataset: Path
    output_dir: Path
    arms: dict[str, Arm] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    jobs: int = Field(default=2, ge=1)
    accelerate_config: Path | None = None
    """Passed to `accelerate launch --config_file`; by default one process on what the machine has."""
    eval: EvalOptions = EvalOptions()

    def comparisons(self) -> list[tuple[str, str]]:
        """Pairs (a, b) to test: an arm against its start and those that it names, a matched one against its match."""
        pairs = [(name, arm.start) for name, arm in self.arms.items()]
        pairs += [(name, other) for name, arm in self.arms.items() for other in arm.against]
        pairs += [(arm.match, name) for name, arm in self.arms.items() if arm.match]
        return list(dict.fromkeys(pairs))

    @model_validator(mode="after")
    def _check_arms(self) -> "AblationConfig":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: each seed once")
        if RAW in self.arms:
            raise ValueError("arms.raw: `raw` is the base itself and needs no entry")
        for name, arm in self.arms.items():
            earlier = [RAW, *list(self.arms)[: list(self.arms).index(name)]]
            if arm.start not in earlier:
                raise ValueError(f"arms.{name}.from: expected one of {', '.join(earlier)}, which stand above it")
            if arm.match is not None and (arm.match not in earlier or arm.match == RAW):
                raise ValueError(f"arms.{name}.match: expected a dpo arm that stands above it, got {arm.match}")
            if arm.match is not None and (arm.stage, self.arms[arm.match].stage) != ("sft", "dpo"):
                raise ValueError(f"arms.{name}.match: an sft arm can match a dpo arm, nothing else")
            if unknown := [other for other in arm.against if other == name or other not in (RAW, *self.arms)]:
                raise ValueError(f"arms.{name}.against: expected other arms, got {unknown[0]}")
            if arm.mine is not None and arm.stage != "dpo":
                raise ValueError(f"arms.{name}.mine: only a dpo arm has negatives to mine")
            if arm.match is not None and arm.start == RAW:
                raise ValueError(f"arms.{name}.from: with `match`, expected an sft arm to go on from")
        return self


def load_config(
    path: Path, dataset: Path | None = None, output_dir: Path | None = None, jobs: int | None = None
) -> AblationConfig:
    """Read an ablation file; what is given beside `path` replaces the file's fields (relative to the working folder).

    Raises:
        UserError: no such file, not YAML, an unknown or wrong field, or a recipe or dataset that is not there.
    """
    fields = read_mapping(path)
    given = {"dataset": dataset, "output_dir": output_dir, "jobs": jobs}
    fields |= {k: v.absolute() if isinstance(v, Path) else v for k, v in given.items() if v is not None}
    try:
        config = AblationConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from None
    return _resolved(path, config)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown field `{where}`"
    if problem["type"] == "missing":
        return f"field `{where}` is missing"
    if problem["type"] == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    return f"field `{where}`: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"


def _resolved(path: Path, config: AblationConfig) -> AblationConfig:
    """The config with absolute paths, after checking that what it names is there."""
    here = path.absolute().parent
    arms = {name: arm.model_copy(update={"config": _normal(here, arm.config)}) for name, arm in config.arms.items()}
    for name, arm in arms.items():
        if not arm.config.is_file():
            raise UserError(f"{path}: arms.{name}.config: no such recipe: {arm.config}")
    launch = config.accelerate_config and _normal(here, config.accelerate_config)
    if launch and not launch.is_file():
        raise UserError(f"{path}: accelerate_config: no such file: {launch}")
    dataset = _normal(here, config.dataset)
    for part in ("sft", "preference"):
        if not (dataset / part / "dataset_dict.json").is_file():
            raise UserError(
                f"{path}: dataset: {dataset} holds no {part}/ that `rise synth` wrote; run `rise synth` first"
            )
    base = _normal(here, Path(config.base))
    if not base.is_dir() and (config.base.startswith((".", "/", "~")) or config.base.count("/") != 1):
        raise UserError(f"{path}: base: expected a model folder or an id of the Hub (NAME/MODEL), got {config.base}")
    updates = {
        "arms": arms,
        "accelerate_config": launch,
        "dataset": dataset,
        "base": str(base) if base.is_dir() else config.base,
        "output_dir": _normal(here, config.output_dir),
    }
    return config.model_copy(update=updates)


def _normal(here: Path, path: Path) -> Path:
    return Path(os.path.normpath(here / path.expanduser()))
