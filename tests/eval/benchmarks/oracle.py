"""The verdicts of scorers that others wrote, for what stands on standard input: a JSON object a line, answered by one.

    .oracles/bin/python tests/eval/benchmarks/oracle.py bfcl|acebench

An object has `category`, `functions`, `gold` and `calls`, [{"name", "arguments"}]; the answer is `true`, `false`, or
`null` where the scorer itself fails. Both packages are installed without their dependencies, so what they import for
other parts is stood in for, and of EvalScope only the files of ACEBench are loaded.
"""

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

Case = dict[str, Any]


def bfcl() -> Callable[[Case], bool]:
    models = types.ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = {"m": types.SimpleNamespace(underscore_to_dot=True)}  # type: ignore[attr-defined]
    sys.modules["bfcl_eval.constants.model_config"] = models
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    def verdict(case: Case) -> bool:
        calls = [{call["name"]: call["arguments"]} for call in case["calls"]]
        found = ast_checker(case["functions"], calls, case["gold"], Language.PYTHON, case["category"], "m")
        return bool(found["valid"])

    return verdict


def acebench() -> Callable[[Case], bool]:
    found = importlib.util.find_spec("evalscope")
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "benchmarks" / "acebench"
    package = types.ModuleType("acebench")
    package.__path__ = [str(folder)]
    sys.modules["acebench"] = package
    from acebench import checker

    def verdict(case: Case) -> bool:
        if "special" in case["category"]:
            return bool(checker.check_special_answer(case["text"], case["gold"], case["category"])["valid"])
        calls = [{call["name"]: call["arguments"]} for call in case["calls"]]
        return bool(checker.check_normal_answer(case["functions"], calls, case["gold"], case["category"])["valid"])

    return verdict


def main() -> None:
    verdict = {"bfcl": bfcl, "acebench": acebench}[sys.argv[1]]()
    for line in sys.stdin:
        try:
            print(json.dumps(verdict(json.loads(line))))
        except Exception:  # of the scorer: a case that it cannot judge
            print("null")


if __name__ == "__main__":
    main()
