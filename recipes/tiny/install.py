"""Put a trained model into the package as one of the bundled names.

    python recipes/tiny/install.py runs/tiny-base/final tiny-base

Copies the files a Hugging Face directory needs, and the record of the run where there is one.
"""

import shutil
import sys
from pathlib import Path

from jacobi_forcing.models.loading import BUNDLED

NEEDED = ("config.json", "generation_config.json", "model.safetensors")
NEEDED += ("tokenizer.json", "tokenizer_config.json")


def main() -> None:
    """Copy the model named by the first argument to the bundled name in the second."""
    source, target = Path(sys.argv[1]), BUNDLED[sys.argv[2]]
    target.mkdir(parents=True, exist_ok=True)
    for name in NEEDED:
        shutil.copyfile(source / name, target / name)
    if (source / "run.json").exists():
        shutil.copyfile(source / "run.json", target / "run.json")
    size = sum(file.stat().st_size for file in target.iterdir())
    print(f"{target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
