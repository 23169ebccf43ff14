"""YAML files that people write: recipes and accelerate configurations."""

from pathlib import Path
from typing import Any

from synthesis.errors import UserError


def read_mapping(path: Path) -> dict[str, Any]:
    """The fields of a file; `UserError` when the file is missing, not YAML or not a mapping."""
    import yaml

    try:
        fields = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())[:300]})") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path}: expected a YAML mapping of field names to values")
    return fields
