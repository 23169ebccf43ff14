"""How tasks are played."""
