"""The models that come with the package, by name."""

from pathlib import Path

BUNDLED = {
    name: Path(__file__).parent.parent / "bundled" / name for name in ("tiny-base", "tiny-forced")
}
