"""What a language model costs: a ledger of tokens, prices that the user sets, and the limits of a run.

The ledger is a journal beside the answers, so the limits hold for the run and not for one command: a run that was
killed and goes on has not got its money back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.records import Json, Record


class Price(BaseModel):
    """US dollars for a million tokens of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    """For input that the provider had in its own cache; like `input` where it is left out."""

    def usd(self, spend: "Spend") -> float:
        """What `spend` costs."""
        cached = self.input if self.cached is None else self.cached
        fresh = spend.tokens_in - spend.tokens_cached
        return (fresh * self.input + spend.tokens_cached * cached + spend.tokens_out * self.output) / 1e6


def load_price(path: Path, model: str) -> Price:
    """The price of `model` from a YAML or JSON file that maps model names to prices.

    Raises `UserError` for a file that cannot be read, a price that is none, or a model that it does not hold.
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: expected a YAML or JSON file of prices: {str(error).splitlines()[0]}.") from error
    if not isinstance(table, dict) or model not in table:
        raise UserError(f"{path}: expected an entry {model!r} with `input` and `output`, US dollars a million tokens.")
    try:
        return Price.model_validate(table[model])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in (model, *first["loc"]))
        raise UserError(f"{path}, {field}: expected US dollars a million tokens ({first['msg']}).") from error


class Spend(Record):
    """One reply: what it took. `tokens_cached` is the part of `tokens_in` that the provider had in its cache."""

    id: str
    stage: str
    tokens_in: int
    tokens_cached: int = 0
    tokens_out: int


@dataclass(frozen=True)
class Limits:
    """When a run stops: tokens (in and out together), US dollars; None for no limit."""

    tokens: int | None = None
    usd: float | None = None


class Costs:
    """The ledger of one run. All methods may be called from several threads."""

    def __init__(self, path: Path, price: Price | None = None, limits: Limits | None = None) -> None:
        self._journal = Journal(path, Spend)
        self._price, self._limits = price, limits or Limits()
        self._lock = Lock()
        self._reused: dict[str, int] = {}
        self._tokens, self._spent = 0, 0.0
        self.told: Callable[[], None] = lambda: None
        """Called after each reply."""
        self._started, self._replies, self._out = time.monotonic(), 0, 0
        for spend in self._journal:
            self._count(spend)

    def _count(self, spend: Spend) -> None:
        self._tokens += spend.tokens_in + spend.tokens_out
        self._spent += self._price.usd(spend) if self._price else 0.0

    def check(self) -> None:
        """Raise `UserError` where a limit is reached; called before each request.

        Requests that are under way then still end, so the total may pass the limit by as many replies as there are
        workers.
        """
        tokens, usd = self._tokens, self._spent
        if self._limits.tokens is not None and tokens >= self._limits.tokens:
            raise UserError(
                f"--max-tokens-total: {tokens:,} of {self._limits.tokens:,} tokens are used up; what was made is kept, "
                "and the same command with a higher limit goes on."
            )
        if self._limits.usd is not None and usd >= self._limits.usd:
            raise UserError(
                f"--max-cost: {usd:.4f} of {self._limits.usd:.4f} USD are used up; what was made is kept, and the same "
                "command with a higher limit goes on."
            )

    def add(self, stage: str, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> None:
        """Note one reply."""
        with self._lock:
            number = str(len(self._journal))
            spend = Spend(
                id=number, stage=stage, tokens_in=tokens_in, tokens_cached=tokens_cached, tokens_out=tokens_out
            )
            self._journal.append(spend)
            self._count(spend)
            self._replies, self._out = self._replies + 1, self._out + tokens_out
        self.told()

    def pace(self) -> str:
        """How this command goes: replies so far, and tokens that they took to write, a second."""
        if not self._replies:
            return ""
        return f"{self._replies} replies, {self._out / max(time.monotonic() - self._started, 1e-3):.1f} tokens/s"

    def reuse(self, stage: str) -> None:
        """Note an answer that came from the run's own cache."""
        with self._lock:
            self._reused[stage] = self._reused.get(stage, 0) + 1

    def table(self) -> dict[str, Json]:
        """What each stage took over the life of the run; `usd` is None where no price is known."""
        with self._lock:
            stages: dict[str, list[Spend]] = {}
            for spend in self._journal:
                stages.setdefault(spend.stage, []).append(spend)
        return {stage: self._row(spends) for stage, spends in stages.items()}

    def _row(self, spends: list[Spend]) -> dict[str, Json]:
        usd = None if self._price is None else sum(self._price.usd(spend) for spend in spends)
        return {
            "replies": len(spends),
            "tokens_in": sum(spend.tokens_in for spend in spends),
            "tokens_cached": sum(spend.tokens_cached for spend in spends),
            "tokens_out": sum(spend.tokens_out for spend in spends),
            "usd": None if usd is None else round(usd, 6),
        }

    def line(self, stage: str) -> str:
        """One line on a stage for people; empty where it asked nothing."""
        row, reused = self.table().get(stage), self._reused.get(stage, 0)
        if row is None:
            return f"{stage}: no reply needed, {reused} answers from the run's cache" if reused else ""
        money = "price not known" if row["usd"] is None else f"{row['usd']:.4f} USD"
        return (
            f"{stage}: {row['replies']:,} replies, {row['tokens_in']:,} tokens in ({row['tokens_cached']:,} of them "
            f"cached by the provider), {row['tokens_out']:,} out, {money}; {reused:,} answers from the run's cache"
        )

    def close(self) -> None:
        """Close the ledger's file."""
        self._journal.close()
