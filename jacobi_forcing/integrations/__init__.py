"""The outside: what lets users of other libraries decode with ours, and ours work with theirs.

`outside` decodes with theirs, to be measured beside ours.
May import: decoding and what is below it.
"""

import shutil
from pathlib import Path

_CUSTOM_GENERATE = Path(__file__).parent / "custom_generate.py"


def write_custom_generate(checkpoint: Path) -> None:
    """Let `generate(custom_generate=checkpoint, trust_remote_code=True)` decode with ours."""
    folder = checkpoint / "custom_generate"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(_CUSTOM_GENERATE, folder / "generate.py")
