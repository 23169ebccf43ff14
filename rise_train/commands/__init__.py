"""Subcommands of `rise`."""
