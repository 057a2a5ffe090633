"""Run the notebooks of this folder and store their outputs, without timings and versions of the machine.

python tutorials/execute.py [notebook ...]
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> None:
    """Run one notebook in an empty folder and write it back."""
    notebook = nbformat.read(path, 4)
    os.environ["TQDM_DISABLE"] = "1"  # no progress bar stays in the outputs
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(Path(__file__).parent.glob("*.ipynb")):
        execute(path)
