"""From a recipe to a finished training: launch, dry run, manifest."""
