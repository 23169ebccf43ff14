"""Prompts that rows have in common, computed once."""
