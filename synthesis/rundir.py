"""The run directory: which configuration it belongs to, and what is in it."""

import json
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from synthesis.errors import UserError
from synthesis.json_file import write_json
from synthesis.records import Json
from synthesis.seeds import digest

FORMAT = 3
"""Version of the run directory; a run of another format is refused."""
JOURNALS = (
    "primitives.jsonl",
    "trajectories.jsonl",
    "trajectories_rejected.jsonl",
    "samples.jsonl",
    "samples_rejected.jsonl",
    "executions.jsonl",
    "negatives.jsonl",
    "llm_rejected.jsonl",
)


FOLDERS = ("dataset", "dataset.partial")
DATASET = frozenset({"README.md", "sft", "preference"})
"""What a run writes into these."""


@dataclass(frozen=True)
class Config:
    """All that decides what the dataset holds; its hash keys the run directory."""

    seed: int
    positives: int
    negatives: int
    author: str
    tools_per_prompt: int
    result_chars: int
    per_tool: int
    servers: str
    """Hash of the servers file and of the sandbox's template and setup script."""
    model: str = ""
    base_url: str = ""
    replies: str = ""
    """What is asked of the model's replies besides: length, temperature, further fields; as JSON."""
    hold_out: tuple[str, ...] = ()
    """What test keeps for itself, each `server:NAME`, `tool:NAME` or `field:NAME`; sorted."""
    kinds: str = "all"
    """Kinds of negatives: `paper` or `all`."""
    execute: bool = True
    """Whether the tools are asked what they say to negatives."""
    wordnet: str = ""
    """Version of the WordNet database that deviating words come from besides; empty for none."""
    neighbours: bool = False
    """Deviating words come from the nearest neighbours by embedding besides."""
    embeddings: bool = False
    """Texts deviate by the distance of their embeddings, not of their letters and words."""
    version: str = ""
    """Of this package and of the prompts and phrasebooks in it: what another one makes is not mixed with it."""
    format: int = FORMAT

    @property
    def hash(self) -> str:
        """Content hash of the configuration."""
        return digest(asdict(self))


def written_by() -> str:
    """The version of this package, with a hash of all in it that authors read: prompts and phrasebooks."""
    here = Path(__file__).parent
    read = sorted(path for path in here.rglob("*") if path.suffix in (".md", ".yaml"))
    return f"{version('rise-train')}+{digest([path.read_text('utf-8') for path in read])[:8]}"


def open_run(run: Path, config: Config, fresh: bool) -> dict[str, Json]:
    """The manifest of `run`, new or old; `fresh` removes an old run first.

    Raises `UserError` for a folder that belongs to another configuration, whose manifest cannot be read, or that holds
    a `dataset` which no run made: nothing of the user's is ever removed, with `fresh` neither.
    """
    if run.exists() and not run.is_dir():
        raise UserError(f"{run}: expected a folder for the run, but it is a file.")
    _refuse_foreign(run)
    if fresh:
        _clear(run)
    path = run / "manifest.json"
    if not path.exists():
        run.mkdir(parents=True, exist_ok=True)
        manifest: dict[str, Json] = {"config": asdict(config), "config_hash": config.hash, "complete": False}
        write_json(path, manifest)
        return manifest
    return _read(path, config)


def _read(path: Path, config: Config) -> dict[str, Json]:
    try:
        manifest: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))
        old = dict(manifest["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected the manifest of a run; start over with --fresh.") from error
    if manifest.get("config_hash") == config.hash:
        return manifest
    new = json.loads(json.dumps(asdict(config)))  # as it was written: a tuple is a list there
    changed = ", ".join(f"{name}: {old.get(name)!r} -> {new[name]!r}" for name in new if old.get(name) != new[name])
    raise UserError(
        f"{path.parent}: the run was made with another configuration ({changed}); start over with --fresh, or name "
        "another folder."
    )


def _refuse_foreign(run: Path) -> None:
    """Stop where the names that a run writes are taken by what no run made: it would be lost."""
    manifest = run / "manifest.json"
    if manifest.exists():
        if not _is_ours(manifest):
            raise UserError(f"{manifest}: expected the manifest of a run; name another folder, or move it away.")
        folders = [run / name for name in FOLDERS if (run / name).is_dir()]
        foreign = [path for folder in folders for path in sorted(folder.iterdir()) if path.name not in DATASET]
        foreign += [run / name for name in FOLDERS if (run / name).is_file()]
    else:
        foreign = [run / name for name in (*FOLDERS, *JOURNALS) if (run / name).exists()]
    if foreign:
        raise UserError(
            f"{foreign[0]}: no manifest.json says that a run made this; name another folder, or move it away."
        )


def _is_ours(manifest: Path) -> bool:
    """Whether a run wrote this manifest, of whatever version or configuration."""
    try:
        written = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(written, dict) and {"config", "config_hash", "complete"} <= written.keys()


def _clear(run: Path) -> None:
    """Remove what an earlier run left, and nothing else that lies in the folder. The manifest goes last."""
    for name in JOURNALS:
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / "dataset", ignore_errors=True)
    (run / "manifest.json").unlink(missing_ok=True)
