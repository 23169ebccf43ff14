"""What a recipe's `push_to_hub` comes to: the way of `rise publish`, once, at the end of the training.

TRL itself would send the output folder as it is, at each save: with the adapter of the reference, a pickle, and paths
of this machine.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from rise_train.publishing.hub import RECIPE, Push, ask
from rise_train.publishing.publish import is_local, publish
from synthesis.errors import UserError

Stage = Callable[[Any, Any, Any], Path]
"""The main function of a training: (data, training, model) arguments to the path of its manifest."""


def pushing(train: Stage) -> Stage:
    """`train`, and then the upload that its `push_to_hub` asks for; a training that was finished before is sent too.

    One process sends. Before the training a `UserError` says what cannot be sent, or not like that.
    """

    @wraps(train)
    def main(data_args: Any, training_args: Any, model_args: Any) -> Path:
        push = take_push(data_args, training_args, model_args)
        manifest = train(data_args, training_args, model_args)
        if push is not None and training_args.process_index == 0:
            _free_memory()
            publish(manifest.parent, push=push)
        return manifest

    return main


def take_push(data_args: Any, training_args: Any, model_args: Any) -> Push | None:
    """The upload that `push_to_hub` asks for, which TRL then sees nothing of: its fields are as by default again.

    Raises:
        UserError: nowhere to send to, no token, a way of sending that `rise publish` lacks, or an adapter on a base
            that nobody else has.
    """
    from transformers.trainer_utils import HubStrategy

    if not training_args.push_to_hub:
        return None
    _refuse_other_ways(training_args)
    _require_base(data_args, model_args)
    private = training_args.hub_private_repo is not False
    push = ask(training_args.hub_model_id, private, training_args.hub_token, RECIPE)
    training_args.push_to_hub, training_args.hub_strategy = False, HubStrategy.EVERY_SAVE
    training_args.hub_model_id = training_args.hub_private_repo = training_args.hub_token = None
    if training_args.process_index == 0:
        kind = "private" if private else "public"
        print(f"push_to_hub: at the end, to {push.repo_id} ({kind}), what `rise publish` would send", flush=True)
    return push


def _refuse_other_ways(training_args: Any) -> None:
    strategy = training_args.hub_strategy.value
    if "checkpoint" in strategy:
        raise UserError(
            f"hub_strategy: {strategy} would send checkpoints, which hold optimiser states and paths of this machine; "
            "the finished model alone is sent, so leave it out"
        )
    for field in ("hub_always_push", "hub_revision"):
        if getattr(training_args, field):
            raise UserError(f"{field}: the finished model is sent once, to the main branch; leave it out")


def _require_base(data_args: Any, model_args: Any) -> None:
    """Raise `UserError` where the result will be an adapter on a base that only this machine has."""
    from eval.policies.adapters import base_of

    if not model_args.use_peft:
        return
    base = base_of(model_args.model_name_or_path)
    if getattr(data_args, "reference", None) == "merged":
        base = "a merged model of the training's own"
    elif not is_local(base):
        return
    raise UserError(
        f"push_to_hub: the adapter's base would be {base}, which others cannot load; leave push_to_hub out, and then "
        "`rise publish MODEL --push --repo-id NAME/MODEL` with --base-id or --merged"
    )


def _free_memory() -> None:
    """Give back what the training took: the trainer is gone, but for cycles and the caches of the accelerator."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
