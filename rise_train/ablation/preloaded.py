"""What every training and evaluation imports, for the process that they are forked from; nothing is computed here.

A thread pool or a GPU that is touched before a fork is broken behind it, so this module only imports. The threads that
OpenBLAS and jemalloc start by themselves have fork handlers.
"""

import datasets  # noqa: F401
import jsonschema  # noqa: F401
import peft  # noqa: F401
import scipy.optimize
import scipy.stats  # noqa: F401
from transformers import LlamaForCausalLM  # noqa: F401
from trl import DPOTrainer, SFTTrainer  # noqa: F401

import rise_train.dpo
import rise_train.packing.grouped_dpo
import rise_train.packing.shared_prefix
import rise_train.runs.manifest
import rise_train.runs.recipe
import rise_train.runs.training_log
import rise_train.sft  # noqa: F401
