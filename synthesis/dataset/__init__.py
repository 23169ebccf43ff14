"""Hugging Face datasets: rows, features, split, card, and tools to look at them."""
