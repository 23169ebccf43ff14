"""Training, ablation, publishing and the command line. May import `synthesis` and `eval`."""

import logging
import os

__version__ = "0.1.0"

# TRL reports every trainer's start unless this is set before huggingface_hub is imported. rise-train has no telemetry.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# PEFT imports bitsandbytes wherever it is installed, which on a CPU then warns of a kernel that only speeds 4 bits up.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
