"""Replies of a model to many prompts, with what the prompts share computed once.

The turns of one task are asked with the history as it was recorded, so each turn's prompt begins as the one before it
ends. Such a chain of prompts is computed once, at its longest; every prompt then looks at as many of those keys and
values as it has tokens. Replies are decoded together, and those that have ended leave their batch every few tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from eval.policies.allocator import hand_back
from eval.policies.threads import Threads

ROUND = 16
"""New tokens after which the replies that have ended leave their batch."""

Ids = list[int]


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers carries no types
    """Keys and values with room for those to come: a `DynamicLayer` copies all it holds at every token."""

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, columns: torch.Tensor, room: int) -> None:
        """These rows and columns of `layer`, with room for further columns."""
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.held = [_copied(held, rows, columns, room) for held in (layer.keys, layer.values)]
        self.keys, self.values = (held[:, :, : len(columns)] for held in self.held)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens' keys and values behind the others, and return all."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for held, new in zip(self.held, (key_states, value_states), strict=True):
            held[:, :, start:end] = new
        self.keys, self.values = (held[:, :, :end] for held in self.held)
        return self.keys, self.values


def _copied(held: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, room: int) -> torch.Tensor:
    _, heads, width, size = held.shape
    copy = held.new_empty(len(rows), heads, len(columns) + room, size)
    kept = held.index_select(0, rows)
    copy[:, :, : len(columns)] = kept if len(columns) == width else kept.index_select(2, columns)
    return copy


def decode(
    model: Any, prompts: Sequence[Ids], stop: set[int], pad: int, limit: int, batch_size: int
) -> Iterator[tuple[int, Ids]]:
    """Each prompt's place with the new tokens of its reply: at most `limit`, up to and with the first of `stop`.

    Longest prompts first, `batch_size` together.
    """
    alone = [[i] for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))]
    together, threads = shares(model), Threads()
    for batch in _batches(chains(prompts) if together else alone, batch_size):
        long = together and any(len(prompts[chain[-1]]) > 1 for chain in batch)  # a lone token leaves nothing to share
        found = batch if long else [[i] for chain in batch for i in chain]
        for answered in (_shared if long else _apart)(model, prompts, found, stop, pad, limit):
            threads.fit()
            yield answered
        hand_back()


def shares(model: Any) -> bool:
    """Whether a prompt's keys and values can be cut out of a longer one's: every layer attends to all that went before.

    A sliding window keeps only its last tokens, and a recurrent layer only the state behind the last one; a model
    without rotary positions may judge distance by the place in the cache.
    """
    rotary = getattr(model.config.get_text_config(), "rope_parameters", None) is not None
    return rotary and all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def chains(prompts: Sequence[Ids]) -> list[list[int]]:
    """Places of the prompts in chains, where each prompt begins with the whole of the one before it; longest first."""
    found: list[list[int]] = []
    for i in sorted(range(len(prompts)), key=lambda i: prompts[i]):
        last = prompts[found[-1][-1]] if found else None
        if last is not None and prompts[i][: len(last)] == last:
            found[-1].append(i)
        else:
            found.append([i])
    return sorted(found, key=lambda chain: -len(prompts[chain[-1]]))


def _batches(found: Sequence[list[int]], size: int) -> Iterator[list[list[int]]]:
    """The chains in order, as many together as have `size` prompts or, where one alone has more, that one."""
    batch: list[list[int]] = []
    for chain in found:
        if batch and sum(map(len, batch)) + len(chain) > size:
            yield batch
            batch = []
        batch.append(chain)
    if batch:
        yield batch


def _shared(
    model: Any, prompts: Sequence[Ids], batch: Sequence[list[int]], stop: set[int], pad: int, limit: int
) -> Iterator[tuple[int, Ids]]:
    places = [i for chain in batch for i in chain]
    said: dict[int, Ids] = {i: [] for i in places}
    cache = _computed(model, [prompts[chain[-1]][:-1] for chain in batch], pad)
    # The last token of a prompt is left for `generate`, which wants something to begin with.
    counts = torch.tensor([len(prompts[i]) - 1 for i in places], device=model.device)
    seen = torch.arange(cache.get_seq_length(), device=model.device) < counts[:, None]
    rows = torch.tensor([row for row, chain in enumerate(batch) for _ in chain], device=model.device)
    while places:
        room = min(ROUND, limit - len(said[places[0]]))
        columns = seen.any(dim=0).nonzero()[:, 0]
        cache.layers = [RoomyLayer(layer, rows, columns, room) for layer in cache.layers]
        seen = seen[:, columns]
        last = torch.tensor([[(said[i] or prompts[i])[-1]] for i in places], device=model.device)
        seen = torch.cat([seen, seen.new_ones(len(places), 1)], dim=1)
        new = _generate(model, last, seen, room, past_key_values=cache)
        seen = torch.cat([seen, seen.new_ones(len(places), new.shape[1] - 1)], dim=1)
        left = []
        for row, (i, ids) in enumerate(zip(places, new.tolist(), strict=True)):
            said[i] += _up_to_stop(ids, stop)
            if said[i][-1] in stop or len(said[i]) == limit:
                yield i, said[i]
            else:
                left.append(row)
        rows = torch.tensor(left, dtype=torch.long, device=model.device)
        places, seen = [places[row] for row in left], seen[rows]


def _apart(
    model: Any, prompts: Sequence[Ids], batch: Sequence[list[int]], stop: set[int], pad: int, limit: int
) -> Iterator[tuple[int, Ids]]:
    """For models whose prompts can share nothing: padded on the left, and all is left to `generate`."""
    places = [i for (i,) in batch]
    width = max(len(prompts[i]) for i in places)
    ids = torch.tensor([[pad] * (width - len(prompts[i])) + prompts[i] for i in places], device=model.device)
    lengths = torch.tensor([len(prompts[i]) for i in places], device=model.device)
    seen = torch.arange(width, device=model.device) >= width - lengths[:, None]
    for i, new in zip(places, _generate(model, ids, seen, limit).tolist(), strict=True):
        yield i, _up_to_stop(new, stop)


def _computed(model: Any, rows: Sequence[Ids], pad: int) -> DynamicCache:
    """Keys and values of every row, padded on the right, where nothing before can see it."""
    cache = DynamicCache(config=model.config)
    width = max(map(len, rows))
    if width:
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=model.device)
        with torch.inference_mode():
            model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


def _generate(model: Any, ids: torch.Tensor, seen: torch.Tensor, limit: int, **options: Any) -> torch.Tensor:
    """The new tokens, [rows, at most `limit`]."""
    with torch.inference_mode():
        output = model.generate(input_ids=ids, attention_mask=seen.long(), max_new_tokens=limit, **options)
    new: torch.Tensor = output[:, ids.shape[1] :]
    return new


def _up_to_stop(ids: Ids, stop: set[int]) -> Ids:
    end = next((i for i, token in enumerate(ids) if token in stop), None)
    return ids if end is None else ids[: end + 1]
