"""Which format reads which file: by ending, by name, built in or from a loose file; what is not a file of its is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hookline import DataError, EventFormat, Format, PluginError
from hookline.data.sources import Catalogue
from hookline.files import formats
from hookline.registry import offers

TABLE = '''
"""Tab-separated values, the first line naming the columns; a column that ends in # holds numbers."""

from hookline import DataError, Format


class Tabs(Format):
    """A table with columns of its own."""

    name = "tabs"
    suffixes = (".cells", ".tabs")

    def read(self, path):
        lines = path.read_text(encoding="utf-8").splitlines()
        columns = lines[0].split("\\t")
        for number, line in enumerate(lines[1:], 2):
            cells = line.split("\\t")
            if len(cells) != len(columns):
                raise DataError(f"{path} line {number} has {len(cells)} cells, not {len(columns)}", "fix that line")
            yield {name.rstrip("#"): float(cell) if name.endswith("#") else cell for name, cell in zip(columns, cells)}
'''


def loose(folder: Path, source: str = TABLE, name: str = "tabs.py") -> tuple[offers.Offer, ...]:
    path = folder / name
    path.write_text(source, encoding="utf-8")
    return offers.loose(str(path))


def table(folder: Path, name: str = "rows.cells", text: str = "prompt\tworth#\nopen\t1.5\nclose\t2\n") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_format_from_a_loose_file_reads_the_endings_it_claims(tmp_path: Path) -> None:
    tabs = loose(tmp_path)
    for name in ("rows.cells", "rows.tabs"):
        found = Catalogue(tabs).rows(table(tmp_path, name))
        assert found.records == ({"prompt": "open", "worth": 1.5}, {"prompt": "close", "worth": 2.0})


def test_rows_have_one_hash_whatever_format_they_stood_in(tmp_path: Path) -> None:
    tabs, path = loose(tmp_path), table(tmp_path)
    lines = tmp_path / "rows.jsonl"
    found = Catalogue(tabs).rows(path)
    lines.write_text("".join(json.dumps(record) + "\n" for record in found.records))
    assert Catalogue().rows(str(lines)).sha256 == found.sha256


def test_a_format_is_named_before_a_file_of_any_ending(tmp_path: Path) -> None:
    tabs, path = loose(tmp_path), table(tmp_path, "export.dat")
    Catalogue(tabs).exists(f"tabs:{path}")
    assert len(Catalogue(tabs).rows(f"tabs:{path}")) == 2
    assert len(Catalogue(tabs).rows(f"tabs.py:tabs:{path}")) == 2
    text = tmp_path / "plain.dat"
    text.write_text("one\n\ntwo\n")
    assert Catalogue().rows(f"text:{text}").records == ({"text": "one"}, {"text": "two"})
    with pytest.raises(
        DataError, match=r"unknown kind of file '\.dat'; known are .arrow, .cells, .csv, .*, .tabs, "
    ):
        Catalogue(tabs).exists(path)


def test_a_file_whose_name_holds_a_colon_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text:odd.jsonl").write_text('{"prompt": "a"}\n')
    assert Catalogue().rows("text:odd.jsonl").records == ({"prompt": "a"},)


def test_a_format_that_nobody_offers_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no format 'tab' is installed; did you mean 'tabs'"):
        Catalogue(loose(tmp_path)).exists(f"tab:{table(tmp_path)}")
    with pytest.raises(DataError, match=r"no data file .*gone\.dat"):
        Catalogue(loose(tmp_path)).exists(f"tabs:{tmp_path}/gone.dat")


def test_two_formats_that_claim_one_ending_are_both_named(tmp_path: Path) -> None:
    other = TABLE.replace('name = "tabs"', 'name = "columns"')
    both = (*loose(tmp_path), *loose(tmp_path, other, "columns.py"))
    path = table(tmp_path)
    with pytest.raises(DataError) as said:
        Catalogue(both).exists(path)
    assert "format 'tabs'" in str(said.value)
    assert "format 'columns'" in str(said.value)
    assert f"tabs:{path}" in said.value.hint
    assert len(Catalogue(both).rows(f"columns:{path}")) == 2


def test_a_loose_format_that_claims_a_built_in_ending_is_no_silent_neighbour(tmp_path: Path) -> None:
    claims = loose(tmp_path, TABLE.replace('".tabs"', '".jsonl"'))
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n')
    with pytest.raises(DataError, match=r"'\.jsonl' files are read by format 'jsonl' .* and format 'tabs'"):
        Catalogue(claims).exists(str(path))
    assert len(Catalogue(claims).rows(f"jsonl:{path}")) == 1


def test_what_an_installed_format_claims_does_not_change_a_built_in_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installing a package never changes a run."""
    [tabs] = loose(tmp_path, TABLE.replace('".tabs"', '".jsonl"'))
    monkeypatch.setattr(formats, "offers", lambda given=(): (*offers.offers(), tabs, *given))
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n')
    assert Catalogue().rows(str(path)).records == ({"prompt": "a"},)
    assert len(Catalogue().rows(table(tmp_path))) == 2  # an ending that was nobody's


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return None", "format 'tabs' returns None for .*rows.cells, not rows"),
        ("yield 3", "format 'tabs' returns int for .*rows.cells row 1"),
        ("yield {1: 2}", "format 'tabs' returns keys that are not text for"),
        ("raise KeyError('x')\n        yield", "format 'tabs' failed on .*rows.cells: KeyError: 'x'"),
    ],
    ids=["nothing", "no-mapping", "keys", "raises"],
)
def test_what_a_format_does_wrong_is_said_of_the_format(tmp_path: Path, body: str, words: str) -> None:
    head = TABLE[: TABLE.index("        lines =")]
    with pytest.raises(PluginError, match=words):
        Catalogue(loose(tmp_path, f"{head}        {body}\n")).rows(table(tmp_path))


@pytest.mark.parametrize(
    ("suffixes", "words"),
    [('".cells"', "suffixes is '.cells'"), ('("tsv",)', r"suffixes is \('tsv',\)"), ("(3,)", r"suffixes is \(3,\)")],
)
def test_endings_are_several_and_begin_with_a_dot(tmp_path: Path, suffixes: str, words: str) -> None:
    tabs = loose(tmp_path, TABLE.replace('(".cells", ".tabs")', suffixes))
    with pytest.raises(PluginError, match=words):
        Catalogue(tabs).exists(f"tabs:{table(tmp_path)}")


def test_the_longest_ending_counts_and_capitals_do_not(tmp_path: Path) -> None:
    packed = TABLE.replace('name = "tabs"', 'name = "packed"').replace('(".cells", ".tabs")', '(".PACKED.cells",)')
    both = (*loose(tmp_path), *loose(tmp_path, packed.replace("lines[0]", "lines[0].upper()"), "packed.py"))
    for name, key in (
        ("a.packed.cells", "PROMPT"),
        ("a.Packed.CELLS", "PROMPT"),
        ("packed.cells", "prompt"),
        ("a.CELLS", "prompt"),
    ):
        assert key in Catalogue(both).rows(table(tmp_path, name)).records[0], name
    with pytest.raises(DataError, match=r"known are .*\.packed\.cells"):
        Catalogue(both).exists(table(tmp_path, "rows.dat"))


NEEDY = """

class Needy(Format):
    name = "needy"
    suffixes = (".needy",)

    class Config(Format.Config):
        width: int

    def read(self, path):
        yield {}
"""


def test_a_format_that_needs_an_option_is_told_only_where_it_is_needed(tmp_path: Path) -> None:
    both = loose(tmp_path, TABLE + NEEDY)
    assert len(Catalogue(both).rows(table(tmp_path))) == 2
    for name in ("rows.needy", "needy:rows.needy"):
        path = table(tmp_path, "rows.needy").replace("rows.needy", "") + "rows.needy"
        given = path if name == "rows.needy" else f"needy:{path}"
        with pytest.raises(
            PluginError, match=r": format 'needy' .tabs.py .* no default for its option 'width'"
        ) as said:
            Catalogue(both).exists(given)
        assert said.value.hint == "give 'width' a default"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("hookline:walks", "builtin:walks"), ("hookline:walks/heldout?seed=2", "builtin:walks/heldout?seed=2")],
)
def test_a_task_named_like_a_component_is_told_how_rows_are_named(name: str, hint: str) -> None:
    with pytest.raises(DataError) as said:
        Catalogue().exists(name)
    assert said.value.hint == f"write {hint}"


def test_a_folder_is_no_file_whatever_its_ending(tmp_path: Path) -> None:
    (tmp_path / "rows.cells").mkdir()
    with pytest.raises(DataError, match="the folder has no data file → it holds nothing"):
        Catalogue(loose(tmp_path)).exists(str(tmp_path / "rows.cells"))


def test_a_file_that_is_none_of_its_format_is_a_sentence_with_its_line(tmp_path: Path) -> None:
    path = table(tmp_path, text="prompt\tworth#\nopen\t1\nclose\n")
    with pytest.raises(DataError, match="line 3 has 1 cells, not 2"):
        Catalogue(loose(tmp_path)).rows(path)
    with pytest.raises(DataError, match="0 usable rows"):
        Catalogue(loose(tmp_path)).rows(table(tmp_path, text="prompt\tworth#\n"))


def test_a_broken_format_closes_no_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = offers.Offer("format", "mine", "nowhere_at_all:Mine", "hookline-mine", "1.0")
    monkeypatch.setattr(formats, "offers", lambda given=(): (*offers.offers(), broken, *given))
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n')
    assert len(Catalogue().rows(str(path))) == 1
    with pytest.raises(
        DataError, match=r"unknown kind of file '.odd'.*format 'mine' \(hookline-mine 1.0\) could not be"
    ):
        Catalogue().exists(table(tmp_path, "rows.odd"))


def test_built_in_formats_are_components_like_any_other() -> None:
    found = {o.name: o for o in offers.offers() if o.kind == "format" and o.built_in}
    files = {name for name, offer in found.items() if not issubclass(offer.load(), EventFormat)}
    assert files == {"jsonl", "text", "csv", "tsv", "parquet", "arrow", "save-to-disk", "preflib"}
    assert all(issubclass(offer.load(), Format) for offer in found.values())
