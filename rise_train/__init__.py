"""Training, ablation, publishing and the command line. May import `synthesis` and `eval`."""

import os

__version__ = "0.1.0"

# TRL reports every trainer's start unless this is set before huggingface_hub is imported. rise-train has no telemetry.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
