"""Choosing servers from a big listing: criteria, one server of each name, strata by tag (RISE, section 3.1).

The paper takes 100 servers from the 1,000 most popular ones of a registry: stratified by tag, filtered, names
de-duplicated by the cosine of a BERT encoder at 0.8, keeping the one with most stars. Its criteria are not stated; the
ones here are our reading. Nothing is downloaded: the listing is a file of the user's.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from synthesis.errors import UserError
from synthesis.records import Json
from synthesis.seeds import digest

NEAR = 0.8
"""Cosine from which two names are the same server's (RISE, section 3.1)."""
COMMON = {"mcp", "server", "servers"}
UNTAGGED = "untagged"

Text = Annotated[str, Field(strict=True)]


class Entry(BaseModel):
    """One server of a listing. Only `name` must be there; what a listing says beyond these fields is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Text
    description: Text = ""
    tags: list[Text] = []
    """The first one decides the stratum."""
    stars: Annotated[int, Field(strict=True, ge=0)] = 0
    docs: Text = ""
    """The readme, or where the documentation is."""
    repository: Text = ""
    license: Text = ""
    language: Text = ""
    transport: Literal["stdio", "http", ""] = ""
    tools: Annotated[int, Field(strict=True, ge=0)] | None = None
    """How many tools it has."""
    requires_key: Annotated[bool, Field(strict=True)] | None = None

    @property
    def stratum(self) -> str:
        """The domain that the server counts for."""
        return self.tags[0].strip().lower() if self.tags else UNTAGGED


@dataclass(frozen=True)
class Criteria:
    """What a server has to be. None, False or 0 asks for nothing; a field that the listing leaves out does not count
    against the server, except for descriptions, docs and a license that are asked for."""

    description: bool = True
    docs: bool = True
    license: bool = False
    no_key: bool = True
    min_stars: int = 0
    min_tools: int = 1
    transport: str | None = None

    def against(self, entry: Entry) -> str:
        """Why the server is left out; empty where it is not."""
        reasons = {
            "has no name": not entry.name.strip(),
            "has no description": self.description and not entry.description.strip(),
            "has no docs": self.docs and not entry.docs.strip(),
            "has no license": self.license and not entry.license.strip(),
            "needs a key": self.no_key and entry.requires_key is True,
            f"has fewer than {self.min_stars} stars": entry.stars < self.min_stars,
            f"has fewer than {self.min_tools} tools": entry.tools is not None and entry.tools < self.min_tools,
            f"does not speak {self.transport}": self.transport is not None
            and entry.transport not in ("", self.transport),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")


@dataclass(frozen=True)
class Choice:
    """The outcome: `chosen` in the order of their strata, `dropped` names with a reason each, and counts."""

    chosen: list[Entry]
    dropped: list[tuple[str, str]]
    strata: dict[str, dict[str, int]] = field(default_factory=dict)
    """By stratum: how many were `listed`, `left` after criteria and de-duplication, and `chosen`."""

    def report(self) -> dict[str, Json]:
        """The same as JSON."""
        chosen = [entry.model_dump(exclude_defaults=True) for entry in self.chosen]
        dropped = [{"name": name, "reason": reason} for name, reason in self.dropped]
        return {"strata": self.strata, "chosen": chosen, "dropped": dropped}


def load(path: Path) -> list[Entry]:
    """The servers of a listing: a JSON list, or an object with one under `servers`.

    `readme` and `readme_url` are read as `docs`, and a single text as `tags` as one tag. Raises `UserError` that names
    the entry and the field for what has the wrong type.
    """
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a JSON file with a list of servers ({error}).") from error
    if isinstance(listing, dict):
        listing = listing.get("servers")
    if not isinstance(listing, list) or not listing:
        raise UserError(f"{path}: expected a JSON list of servers, or an object with one under 'servers'.")
    return [_entry(path, number, item) for number, item in enumerate(listing)]


def _entry(path: Path, number: int, item: Json) -> Entry:
    where = f"{path}, server {number}"
    if not isinstance(item, dict):
        raise UserError(f"{where}: expected an object with at least a name, not {item!r}.")
    known = {key: value for key, value in item.items() if value is not None}
    known["docs"] = next((known[key] for key in ("docs", "readme", "readme_url") if known.get(key)), "")
    if isinstance(known.get("tags"), str):
        known["tags"] = [known["tags"]]
    try:
        return Entry.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}, {place}: {first['msg'].lower()}, not {first['input']!r:.80}.") from error


def select(entries: Sequence[Entry], count: int, criteria: Criteria | None = None, near: float = NEAR) -> Choice:
    """Choose `count` servers, or all that are left where these are fewer. The order of the listing plays no part.

    First the criteria, then one server of each name, then the strata: seats in proportion to what is left in each, at
    least one, by largest remainder. Within a stratum the most stars win.

    Raises `UserError` where `count` is smaller than the number of strata, and where the encoder is not installed.
    """
    criteria = criteria or Criteria()
    ordered = sorted(entries, key=lambda entry: (-entry.stars, entry.name, digest(entry.model_dump())))
    against = [(entry, criteria.against(entry)) for entry in ordered]
    dropped = [(entry.name, reason) for entry, reason in against if reason]
    left, twins = deduplicate([entry for entry, reason in against if not reason], near)
    strata: dict[str, list[Entry]] = defaultdict(list)
    for entry in left:
        strata[entry.stratum].append(entry)
    quota = seats({name: len(found) for name, found in strata.items()}, count)
    chosen = [entry for name in sorted(strata) for entry in strata[name][: quota[name]]]
    beyond = [
        (entry.name, f"its stratum {name!r} has {quota[name]} seats, and others have more stars")
        for name in sorted(strata)
        for entry in strata[name][quota[name] :]
    ]
    listed = Counter(entry.stratum for entry in entries)
    table = {
        name: {"listed": number, "left": len(strata.get(name, ())), "chosen": quota.get(name, 0)}
        for name, number in sorted(listed.items())
    }
    return Choice(chosen, dropped + twins + beyond, table)


def deduplicate(entries: Sequence[Entry], near: float = NEAR) -> tuple[list[Entry], list[tuple[str, str]]]:
    """One server of each name: `entries` by falling stars, each kept unless its name is near a kept one's.

    So among two names with a cosine of `near` or more, the one with more stars stays, and no two kept ones are near.
    Returns the kept ones, and the names of the others with the name that each resembles.
    """
    from synthesis.text.embedding import encode

    vectors = encode([plain_name(entry.name) for entry in entries])
    kept: list[int] = []
    twins = []
    for index, entry in enumerate(entries):
        cosines = vectors[kept] @ vectors[index]
        if kept and cosines.max() >= near:
            other = entries[kept[int(np.argmax(cosines))]].name
            twins.append((entry.name, f"its name is near {other!r} (cosine {cosines.max():.2f})"))
        else:
            kept.append(index)
    return [entries[index] for index in kept], twins


def plain_name(name: str) -> str:
    """A name as it is compared: words only, without owner ("@owner/"), "mcp" and "server", which make names alike."""
    words = re.findall(r"\w+", name.rpartition("/")[2].replace("_", " ").lower())
    return " ".join(word for word in words if word not in COMMON) or name.lower()


def seats(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Divide `count` seats among strata of these sizes: in proportion, at least one each, never more than the size.

    The whole parts first, then the largest remainders; equal ones by name. What a small stratum cannot fill goes to the
    others. Raises `UserError` where there are more strata than seats.
    """
    if count < len(sizes):
        raise UserError(f"--count: expected {len(sizes)} or more, one for each stratum, not {count}; or merge tags.")
    total = sum(sizes.values())
    share = {name: min(count, total) * size / total for name, size in sizes.items()}
    given = {name: max(1, int(part)) for name, part in share.items()}
    while sum(given.values()) > min(count, total):
        most = max((name for name in given if given[name] > 1), key=lambda name: (given[name] - share[name], name))
        given[most] -= 1
    while sum(given.values()) < min(count, total):
        open_ones = [name for name in sizes if given[name] < sizes[name]]
        given[min(open_ones, key=lambda name: (given[name] - share[name], name))] += 1
    return given
