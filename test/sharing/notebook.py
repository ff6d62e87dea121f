"""Executes a notebook headless: notebook.py FILE.ipynb. Prints {"text": all that its cells printed, "pictures": N} as JSON."""

import json
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
text, pictures = [], 0
for cell in notebook.cells:
    for out in cell.get("outputs", []):
        text.append(out.get("text", "") or out.get("data", {}).get("text/plain", ""))
        pictures += "image/png" in out.get("data", {})
print(json.dumps({"text": "\n".join(text), "pictures": pictures}))
