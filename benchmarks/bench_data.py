"""50 000 rows of chat: read, checked, hashed and encoded here, and by `datasets` with the same tokenizer (`make test-peers` installs it).

Both run in processes of their own, imports included. Here each row also gets the mask of what the assistant chose, which the peer does
not make: the template of this folder does not mark it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".venv-peers" / "bin" / "python"
ROWS = 50_000
OURS = """
import sys
from pathlib import Path
from hookline.data.sources import Catalogue
from hookline.tokens.encode import encode
from hookline.tokens.tokenizer import Tokenizer
tokenizer = Tokenizer.load(Path(sys.argv[1]))
print(sum(len(encode(tokenizer, row, where=where)) for where, row in Catalogue().rows(sys.argv[2]).placed()))
"""
THEIRS = """
import os, sys, tempfile
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=tempfile.mkdtemp(), HF_DATASETS_DISABLE_PROGRESS_BARS="1")
import datasets
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
rows = datasets.load_dataset("json", data_files=sys.argv[2], split="train")
rows = rows.map(lambda row: tokenizer.apply_chat_template(row["messages"], return_dict=True))
print(sum(len(row["input_ids"]) for row in rows))
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Qwen2-shaped folder and a file of chat rows."""
    folder = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, ROOT / "tests" / "shapes.py", folder / "models"], check=True, capture_output=True)
    rng, words = random.Random(0), "open close read write file list value name return error string number the of and to".split()
    with (folder / "chat.jsonl").open("w") as file:
        for number in range(ROWS):
            said = [" ".join(rng.choices(words, k=rng.randint(5, most))) for most in (40, 60)]
            turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), said)]
            file.write(json.dumps({"messages": turns, "id": number}) + "\n")
    return folder / "models" / "qwen2", folder / "chat.jsonl"


@pytest.mark.parametrize("who", ["hookline", "datasets"])
def bench_chat_rows(benchmark: Any, given: tuple[Path, Path], who: str) -> None:
    if who == "datasets" and not PEER.exists():
        pytest.skip("make test-peers installs `datasets`")
    program = [sys.executable, "-c", OURS] if who == "hookline" else [PEER, "-c", THEIRS]

    def run() -> str:
        return subprocess.run([*program, *given], check=True, capture_output=True, text=True, env={**os.environ}).stdout

    benchmark.extra_info["tokens"] = int(benchmark.pedantic(run, rounds=2).split()[-1])
