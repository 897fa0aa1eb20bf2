"""``python -m benchmarks._gpu.metadata FOLDER``: what an installation would say of this checkout, for a machine without one.

Encoders, heads and sources are found by entry points: with FOLDER and the checkout on PYTHONPATH they are.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from embedstore._version import __version__


def write_metadata(folder: Path) -> None:
    """Name, version and entry points as a ``.dist-info`` in `folder`."""
    pyproject = Path(__file__).parent.parent.parent / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    home = folder / f"{project['name']}-{__version__}.dist-info"
    home.mkdir(parents=True, exist_ok=True)
    (home / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {__version__}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in found.items()) for group, found in project["entry-points"].items()
    ]
    (home / "entry_points.txt").write_text("\n".join(groups))


if __name__ == "__main__":
    write_metadata(Path(sys.argv[1]))
