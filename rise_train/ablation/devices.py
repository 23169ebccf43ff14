"""The GPUs that the jobs of an ablation may be handed, and how a process is shown only its own."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from synthesis.errors import UserError

VARIABLES = {"cuda": ("CUDA_VISIBLE_DEVICES",), "hip": ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")}
"""What tells a process which GPUs it has; where several are known, the first one that is set, else the first."""
PROBE = """
import torch
kind = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
print("hip" if torch.version.hip else kind, torch.accelerator.device_count())
"""


@dataclass(frozen=True)
class Devices:
    """What this machine computes on. `names` is empty where there is nothing to hand out: on CPUs, and with one MPS."""

    kind: str = "cpu"
    variable: str = ""
    names: tuple[str, ...] = ()

    def shown(self, names: tuple[str, ...]) -> dict[str, str]:
        """The environment of a process that is to see just these."""
        return {self.variable: ",".join(names)} if names else {}


def find_devices(environment: Mapping[str, str]) -> Devices:
    """The devices that a process with this environment sees.

    A process of its own is asked: one that has touched CUDA cannot hand it to its children.

    Raises:
        UserError: torch cannot be imported or asked.
    """
    asked = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, env=dict(environment))
    if asked.returncode != 0:
        raise UserError(f"torch does not say which devices there are: {asked.stderr.strip().splitlines()[-1][:200]}")
    kind, count = asked.stdout.split()
    return handed(kind, int(count), environment)


def handed(kind: str, count: int, environment: Mapping[str, str]) -> Devices:
    """The names of `count` visible devices: those that the environment lists, numbers or UUIDs, else their numbers."""
    if kind not in VARIABLES:
        return Devices(kind)
    variable = next((name for name in VARIABLES[kind] if name in environment), VARIABLES[kind][0])
    listed = environment.get(variable)
    names = [name.strip() for name in listed.split(",")] if listed is not None else [str(i) for i in range(count)]
    return Devices(kind, variable, tuple(names[:count]))
