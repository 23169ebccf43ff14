"""Validation while training, by TRL's own fields: on rows that are not trained on, with an early stop if asked for."""

from typing import Any

from synthesis.errors import UserError

DEFAULT_EVAL_BATCH = 8
"""TRL's `per_device_eval_batch_size` where a recipe does not set it."""


def settle_validation(data_args: Any, training_args: Any) -> None:
    """Give the fields that belong to validation values that go together.

    With `early_stopping_patience` the best checkpoint is what training leaves, as with `load_best_model_at_end`. A
    batch is as large as one of training where the recipe does not say otherwise: what fits there fits here.

    Raises `UserError` for early stopping, or a best model, with nothing to measure it by, and where saving and
    evaluating do not go together.
    """
    patience = data_args.early_stopping_patience
    if training_args.eval_strategy == "no":
        for name, wanted in (
            ("early_stopping_patience", patience is not None),
            ("load_best_model_at_end", training_args.load_best_model_at_end),
            ("dataset_eval_split", data_args.dataset_eval_split is not None),
        ):
            if wanted:
                raise UserError(f"{name}: nothing is validated; set eval_strategy: steps with eval_steps, or epoch")
        return
    if patience is not None:
        training_args.load_best_model_at_end = True
        training_args.restore_callback_states_from_checkpoint = True  # else a resumed run would be patient anew
        training_args.metric_for_best_model = training_args.metric_for_best_model or "loss"
        training_args.greater_is_better = bool(training_args.greater_is_better)
    if training_args.load_best_model_at_end and training_args.save_strategy != training_args.eval_strategy:
        raise UserError(
            f"save_strategy: the best checkpoint is kept, so it must be saved when it is measured; expected "
            f"{training_args.eval_strategy.value}, as eval_strategy, found {training_args.save_strategy.value}"
        )
    if training_args.per_device_eval_batch_size == DEFAULT_EVAL_BATCH:
        training_args.per_device_eval_batch_size = training_args.per_device_train_batch_size
