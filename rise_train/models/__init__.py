"""Models and adapters as the stages load them; the reference of DPO."""
