"""What the benchmark scripts share: where results go, and what they record."""

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jacobi_forcing.data.files import write_json
from jacobi_forcing.data.record import commit, hardware, versions

RESULTS = Path(__file__).parent / "results"


def save(name: str, rows: list[dict[str, Any]], **facts: Any) -> Path:
    """Write `results/name.json` with the rows and everything needed to run it again."""
    path = RESULTS / f"{name}.json"
    script = Path(sys.argv[0])
    write_json(
        path,
        {
            "command": shlex.join(["python", f"benchmarks/{script.name}", *sys.argv[1:]]),
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "hardware": hardware(),
            "versions": versions(),
            **facts,
            "rows": rows,
        },
    )
    print(f"wrote {path}")
    return path
