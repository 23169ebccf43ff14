"""Plans over primitives, each executed once more from end to end."""
