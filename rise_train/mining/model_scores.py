"""What a model says of preference groups: how likely it finds each answer, and what it would answer itself."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from eval.policies.base import Prompt
from eval.policies.local import LocalPolicy
from eval.replies.calls import Reply, Toolbox, calls_of
from eval.replies.one_call_a_turn import takes_parallel_calls
from eval.scores.metrics import score_task
from rise_train.rows.check import check_preference
from rise_train.rows.groups import Group
from synthesis.dataset.source import Row
from synthesis.errors import UserError
from synthesis.seeds import digest, seeded

OWN = "own_reply"
"""Kind of a negative that the model itself answered."""
PACKED = 4
"""Groups that are scored in one pass."""


class OwnReply(BaseModel):
    """A wrong answer of the model's own."""

    calls: list[dict[str, Any]]
    missed: float
    """Share of the turn's critical parameters that it does not meet."""
    log_prob: float = 0.0

    def message(self) -> dict[str, Any]:
        """The assistant message that makes the calls."""
        tool_calls = [{"type": "function", "function": call} for call in self.calls]
        return {"role": "assistant", "content": "", "tool_calls": tool_calls}

    def meta(self, group: str) -> dict[str, Any]:
        """What the dataset says of it, as of any negative; it has no mutations."""
        identity = digest(OWN, group, self.calls)
        facts = {"id": identity, "kind": OWN, "score": self.missed, "executed": None, "mutations": []}
        return {**facts, "log_prob": self.log_prob}


class Scores(BaseModel):
    """What the model said of one group, in nats: sums over the answers' tokens."""

    id: str
    chosen: float
    rejected: list[float]
    own: list[OwnReply]
    unusable: int
    """Wrong replies that cannot be trained on, e.g. because a value holds a control token."""


class Miner:
    """A loaded model that answers prompts and scores groups.

    Args:
        model: a model folder, an adapter folder or a Hub id.
        batch_size: prompts that are decoded at a time; `max_new_tokens` is where a reply is cut off.

    Raises:
        UserError: nothing that can be loaded, or a chat template that shows no tool calls.
    """

    def __init__(self, model: str, batch_size: int, max_new_tokens: int) -> None:
        from trl.trainer.utils import add_fused_lm_head

        from rise_train.models.loading import score_only_targets
        from rise_train.packing.attention import unserved
        from rise_train.packing.grouped_dpo import install
        from rise_train.rows.masking import use_training_template

        score_only_targets()
        self.policy = LocalPolicy(model, batch_size, max_new_tokens)
        self.model, self.tokenizer = self.policy.model, self.policy.tokenizer
        use_training_template(self.tokenizer)
        self.parallel = takes_parallel_calls(self.tokenizer)
        inner = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        self.packs = not unserved(inner.config, inner.config._attn_implementation)
        if self.packs:
            add_fused_lm_head(inner, outputs=("log_probs",))
            install(inner)

    def judge(self, rows: Sequence[Row], own_replies: int, seed: int) -> list[Scores]:
        """Score the answers of preference rows, the model's own wrong ones among them.

        Args:
            own_replies: how often each prompt is answered: once greedily, then at temperature 1.

        Raises:
            UserError: a row that no training could take, or one of parallel calls where the template shows one a turn.
        """
        if not self.parallel and (
            parallel := [row for row in rows if len(row["chosen"][0].get("tool_calls") or []) > 1]
        ):
            raise UserError(
                f"preference row {parallel[0]['meta']['id']}: the model's chat template has room for one call a turn, "
                "so an answer with parallel calls cannot be scored as one; use another model, or data without them"
            )
        groups, own, unusable = [], [], []
        for row, replies in zip(rows, self._replies(rows, own_replies, seed), strict=True):
            group = check_preference(self.tokenizer, [row], None).groups[0]
            usable, lost = self._usable(row, group, replies)
            answers = [*group.rejected_ids, *(ids for _, ids in usable)]
            groups.append(Group(group.prompt_ids, group.chosen_ids, answers))
            own.append([reply for reply, _ in usable])
            unusable.append(lost)
        parts = [groups[at : at + PACKED] for at in range(0, len(groups), PACKED)]
        scored = [scores for part in parts for scores in self.log_probs(part)]
        return [_scores(*found) for found in zip(rows, scored, own, unusable, strict=True)]

    def log_probs(self, groups: Sequence[Group]) -> list[list[float]]:
        """For each group the sums of its answers' log-probabilities, the right one's first."""
        if not self.packs:
            return [self._one_by_one(group) for group in groups]
        import torch

        from rise_train.packing.grouped_dpo import GroupCollator
        from rise_train.rows.masking import NO_LABEL

        batch = GroupCollator(self.tokenizer.pad_token_id)([vars(group) for group in groups])
        batch = {name: values.to(self.model.device) for name, values in batch.items()}
        labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, NO_LABEL)
        with torch.no_grad():
            scores = self.model(**batch, labels=labels, fused_lm_head=True, use_cache=False).log_probs
        chosen, rejected = (half.tolist() for half in scores.float().sum(dim=1).chunk(2))
        found, at = [], 0
        for group in groups:
            end = at + len(group.rejected_ids)
            found.append([chosen[at], *rejected[at:end]])
            at = end
        return found

    def _one_by_one(self, group: Group) -> list[float]:
        """For models that carry state from token to token, where answers cannot share a row."""
        from rise_train.models.fingerprint import ProbeRow, scores_as_stored

        masked = [-100] * len(group.prompt_ids)
        answers = [group.chosen_ids, *group.rejected_ids]
        rows = [ProbeRow("", [*group.prompt_ids, *a], [*masked, *a]) for a in answers]
        return list(map(sum, scores_as_stored(self.model, rows)))

    def _replies(self, rows: Sequence[Row], count: int, seed: int) -> list[list[Reply]]:
        import torch

        prompts = [Prompt(row["prompt"], row["tools"]) for row in rows]
        told: list[list[Reply]] = [[] for _ in rows]
        for draw in range(count):
            config = self.model.generation_config
            config.do_sample, config.top_k = (True, 0) if draw else (False, None)  # the library would draw of 50 tokens
            torch.manual_seed(seeded(seed, "draw", draw, rows[0]["meta"]["id"]).getrandbits(32))
            for found, reply in zip(told, self.policy.reply(prompts), strict=True):
                found.append(reply)
        return told

    def _usable(self, row: Row, group: Group, replies: Sequence[Reply]) -> tuple[list[tuple[OwnReply, list[int]]], int]:
        """The wrong replies that are none of the group's answers, with their token ids; and how many were lost."""
        known = [group.chosen_ids, *group.rejected_ids]
        usable, lost = [], 0
        for reply in replies:
            own = wrong(row, reply)
            if own is None:
                continue
            try:
                ids = check_preference(self.tokenizer, [{**row, "rejected": [[own.message()]]}], None).groups[0]
            except UserError:  # what a model says may be anything; the caller counts what is lost
                lost += 1
                continue
            if ids.rejected_ids[0] not in known:
                known.append(ids.rejected_ids[0])
                usable.append((own, ids.rejected_ids[0]))
        return usable, lost


def wrong(row: Row, reply: Reply) -> OwnReply | None:
    """The reply as a negative of the row: its calls can be read and miss a critical parameter. None for any other."""
    if reply.problem or reply.truncated:
        return None
    counts = score_task([(calls_of(row["chosen"][0]), row["meta"]["critical"], reply)], Toolbox(row["tools"]))
    missed = counts.icp_gold - counts.icp_equal
    calls = [call.as_dict() for call in reply.calls]
    return OwnReply(calls=calls, missed=missed / counts.icp_gold) if missed else None


def _scores(row: Row, scores: list[float], own: list[OwnReply], unusable: int) -> Scores:
    chosen, rejected = scores[0], scores[1:]
    split = len(row["rejected"])
    told = [reply.model_copy(update={"log_prob": p}) for reply, p in zip(own, rejected[split:], strict=True)]
    return Scores(id=row["meta"]["id"], chosen=chosen, rejected=rejected[:split], own=told, unusable=unusable)
