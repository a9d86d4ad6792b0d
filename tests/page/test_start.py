"""The page's process has only what it needs, so that it is ready at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CODE = """
import sys
import uvicorn
uvicorn.Server.run = lambda self, sockets: None
from hookline.cli import main
code = main(["collect", "--items", "items.jsonl", "--store", "STORE", "--port", "0"])
heavy = [name for name in ("torch", "numpy", "pandas", "transformers") if name in sys.modules]
assert code == 0 and not heavy, (code, heavy)
"""


def test_the_page_of_a_store_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(json.dumps({"prompt": "a", "candidates": ["x", "y"]}) + "\n")
    for store in ("sqlite:///answers.db", "answers.jsonl"):
        done = subprocess.run([sys.executable, "-c", CODE.replace("STORE", store)], cwd=tmp_path, env=os.environ,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "/enter#" in done.stdout
