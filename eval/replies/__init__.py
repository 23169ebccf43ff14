"""What a model answers, read as calls; chat templates."""
