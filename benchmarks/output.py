"""What a benchmark found, as JSON on the terminal and, when one is named, in a file."""

import json
from pathlib import Path
from typing import Any

from salq.core.files import write_json


def tell(value: dict[str, Any], out: Path | None) -> None:
    """Print `value`; write it into `out` too, unless that is None."""
    if out is not None:
        write_json(out, value)
    print(json.dumps(value, indent=1))
