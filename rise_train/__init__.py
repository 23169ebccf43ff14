"""Training, ablation, publishing and the command line. May import `synthesis` and `eval`."""

__version__ = "0.1.0"
