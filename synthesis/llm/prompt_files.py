"""Prompts as files: Markdown with places to fill in, a `system.md` beside them, and a version that is their hash."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from synthesis.llm.client import Prompt, Stage
from synthesis.records import Json
from synthesis.seeds import digest


def filled(folder: Path, name: str, stage: Stage, **values: Json) -> Prompt:
    """Fill in `FOLDER/NAME.md`; the version is the hash of its text and of the common `system.md`."""
    files = _environment(folder)
    system, user = files.get_template("system.md"), files.get_template(f"{name}.md")
    return Prompt(name, stage, version(folder, name), system.render(), user.render(values))


@cache
def version(folder: Path, name: str) -> str:
    """Hash of the files that make the prompt `name`: another wording asks anew."""
    return digest([(folder / f"{file}.md").read_text(encoding="utf-8") for file in ("system", name)])


@cache
def _environment(folder: Path) -> Environment:
    # The prompts are plain text for a model, so nothing is escaped as HTML; `fence` does what is needed here.
    return Environment(loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, autoescape=False)
