"""Who writes the text of a dataset: the Author protocol and its implementations."""
