"""Notebooks as people without ipywidgets run them."""

from __future__ import annotations

from pathlib import Path

NO_WIDGETS = "import sys\nsys.modules['ipywidgets'] = None"


def run_notebook(cells: list[str], folder: Path) -> list[str]:
    """What each cell printed (stdout), run one after the other in `folder`; a cell that raises fails the test."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (NO_WIDGETS, *cells)])
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    shown = ["".join(out["text"] for out in cell.outputs if out.get("name") == "stdout") for cell in notebook.cells]
    return shown[1:]
