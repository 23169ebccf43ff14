"""`rise mine`: negatives that a model finds likely."""
