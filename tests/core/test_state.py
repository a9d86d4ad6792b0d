"""What is written aside is old or new, never a third thing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hookline import CheckpointError
from hookline.storage import folders, trees


def write(target: Path, value: float) -> None:
    with folders.write_aside(target, {"value": value}) as aside:
        trees.save_tree(aside, "tree", {"x": torch.full((3,), value), "list": [1, {"nan": float("nan")}], "none": None})


@pytest.mark.parametrize("renames", [1, 2])
def test_a_kill_between_the_renames_of_a_replacement_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    target = tmp_path / "best"
    write(target, 1.0)
    real, left = Path.rename, [renames]

    def die(self: Path, other: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt  # as a kill: what follows in this process does not happen
        return real(self, other)

    monkeypatch.setattr(Path, "rename", die)
    left[0] = renames - 1
    with pytest.raises(KeyboardInterrupt):
        write(target, 2.0)
    monkeypatch.undo()
    write(target, 3.0)
    assert folders.verify(target)["value"] == 3.0


def test_trees_come_back_as_they_were(tmp_path: Path) -> None:
    write(tmp_path / "t", 2.5)
    folders.verify(tmp_path / "t")
    tree = trees.load_tree(tmp_path / "t", "tree")
    assert tree["x"].tolist() == [2.5] * 3
    assert tree["list"][0] == 1
    assert tree["list"][1]["nan"] != tree["list"][1]["nan"]
    assert tree["none"] is None


KEYS = st.text("/~ab_", max_size=4) | st.sampled_from(["__tensor__", "__float__", "__dict__"])
TREES = st.recursive(
    st.integers() | st.floats() | st.text(max_size=3) | st.none() | st.integers(0, 9).map(lambda n: torch.full((2,), n)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_any_tree_comes_back_whatever_its_keys(tree: dict[str, Any]) -> None:
    """Keys with slashes, empty ones, and those that look like what stands for a tensor."""
    with tempfile.TemporaryDirectory() as folder:
        trees.save_tree(Path(folder), "tree", tree)
        assert repr(trees.load_tree(Path(folder), "tree")) == repr(tree)


def test_a_tensor_without_values_is_refused(tmp_path: Path) -> None:
    for tensor in (torch.zeros(2, device="meta"), torch.zeros(2, 2).to_sparse()):
        with pytest.raises(CheckpointError, match=r"keeps 'a/b' in its state, a tensor on meta or in the layout"):
            trees.save_tree(tmp_path, "tree", {"a": {"b": tensor}})


def test_a_manifest_names_the_file_that_changed(tmp_path: Path) -> None:
    write(tmp_path / "t", 1.0)
    path = tmp_path / "t" / "tree.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(CheckpointError, match=r"tree\.json does not match its hash"):
        folders.verify(tmp_path / "t")


def test_state_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'mine' keeps 'a/b' in its state, a builtin_function_or_method"):
        trees.save_tree(tmp_path, "tree", {"a": {"b": print}}, "'mine'")


def test_hashes_depend_on_names_shapes_types_and_bytes() -> None:
    x = torch.arange(6.0)
    hashes = {
        trees.hash_tensors({"a": x}),
        trees.hash_tensors({"b": x}),
        trees.hash_tensors({"a": x.view(2, 3)}),
        trees.hash_tensors({"a": x.double()}),
        trees.hash_tensors({"a": x.flip(0)}),
    }
    assert len(hashes) == 5
    assert json.dumps(sorted(hashes))
