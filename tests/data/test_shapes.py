"""Rows of users are read as they are: every shape, in every container that can hold it, for the rollout that it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rows_of_users import SHAPES, Shape

from hookline.config.data import DataSpec
from hookline.data.sources import Catalogue
from hookline.errors import DataError


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def catalogue(path: str, **options: Any) -> Catalogue:
    return Catalogue(named={"mine": DataSpec.model_validate({"path": path, **options})})


def read(path: str, shape: Shape) -> Any:
    found = catalogue(path, shape=shape.named or None).rows("mine") if shape.named else Catalogue().rows(path)
    return found.records[0]


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_recognised_and_all_its_columns_stay(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    record = read(lines(tmp_path / "rows.jsonl", [shape.row] * 3), shape)
    assert {key: record.get(key) for key in shape.fields} == shape.fields
    assert shape.row.keys() - record.keys() <= {key for key, value in shape.fields.items() if value is None}


# -- what is not clear, and what is almost right


def refusal(path: str, **options: Any) -> str:
    with pytest.raises(DataError) as said:
        (catalogue(path, **options) if options else Catalogue()).rows("mine" if options else path)
    return str(said.value)


def test_two_shapes_that_fit_are_both_named_and_the_user_decides(tmp_path: Path) -> None:
    row = {"question": "Which?", "answer": "This.", "instruction": "Open.", "output": "Done."}
    path = lines(tmp_path / "rows.jsonl", [row] * 2)
    said = refusal(path)
    assert "its 'prompt' may come from instruction, output (shape 'alpaca') or question, answer" in said
    assert "shape: alpaca" in said
    assert catalogue(path, shape="question-answer").rows("mine").records[0]["prompt"] == "Which?"
    assert Catalogue().rows(f"{path}?shape=alpaca").records[0]["prompt"] == "Open."
    both = {"prompt": "a", "response_0": "b", "response_1": "c", "better_response_id": 0, "safer_response_id": 1}
    path = lines(tmp_path / "pku.jsonl", [both])
    assert "pku-better" in refusal(path)
    assert catalogue(path, shape="pku-safer").rows("mine").records[0]["chosen"] == "c"


def test_a_field_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    row = {"prompt": "mine", "question": "theirs", "answer": "42"}
    record = Catalogue().rows(lines(tmp_path / "rows.jsonl", [row])).records[0]
    assert record == row


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": "alpacca"}, "there is no shape 'alpacca'; did you mean 'alpaca'?"),
        ({"shape": "alpaca"}, "row 1: 'instruction' is missing, unlike in rows of the shape 'alpaca'"),
        ({"columns": {"prompt": "query"}}, "row 1 has no column 'query', which `columns` names for 'prompt'"),
        ({"columns": {"prompt": "text.of"}}, "row 1 has no column 'text.of'"),
        ({"filter": {"lang": "en"}}, "row 1 has no column 'lang', which `filter` names"),
        ({"filter": {"text": {"min": 1}}}, "'text' is 'a', not a number"),
        ({"filter": {"score": 7}}, "0 of 2 rows are usable"),
        ({"split": "test"}, "is one file, which has no split 'test'"),
        ({"split": "train[x:3]"}, "the split 'train[x:3]' cannot be read"),
        ({"subset": "en"}, "is not a folder, so it has no subset 'en'"),
    ],
)
def test_options_that_do_not_fit_the_file_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    assert words in refusal(lines(tmp_path / "rows.jsonl", [{"text": "a", "score": 1}, {"text": "b", "score": 2}]), **options)


def test_a_row_unlike_the_first_ones_is_named_with_its_line(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}] * 70 + [{"instruction": "a"}]
    assert "rows.jsonl row 71: 'output' is missing" in refusal(lines(tmp_path / "rows.jsonl", rows))
    broken = {"input": {"tools": []}, "preferred_output": [{}], "non_preferred_output": [{}]}
    said = refusal(lines(tmp_path / "rows.jsonl", [broken]))
    assert "row 1 does not have the shape 'openai-pairs': there is no 'messages'" in said


def test_comparisons_that_prefer_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    row = SHAPES["helpsteer3"].row
    path = lines(tmp_path / "rows.jsonl", [row, {**row, "overall_preference": 0}, {**row, "overall_preference": 1}])
    found = Catalogue().rows(path)
    assert [record["chosen"] for record in found.records] == ["It is open.", "No."]
    assert any("1 of 3 rows prefer no answer" in note for note in found.notes)
    assert [found.place(i).rpartition("/")[2] for i in range(2)] == ["rows.jsonl row 1", "rows.jsonl row 3"]


# -- the section `data`


def test_columns_are_renamed_also_within_objects_and_lists(tmp_path: Path) -> None:
    row = {"q": {"text": "Open."}, "all": [{"said": "Done."}], "a.b": 3, "prompt": "old"}
    path = lines(tmp_path / "rows.jsonl", [row])
    columns = {"prompt": "q.text", "completion": "all.0.said", "kept": "a.b"}
    record = catalogue(path, columns=columns).rows("mine").records[0]
    assert (record["prompt"], record["completion"], record["kept"]) == ("Open.", "Done.", 3)
    assert record["q"] == row["q"]


def test_speakers_and_keys_of_messages_are_renamed(tmp_path: Path) -> None:
    turns = [{"speaker": "customer", "said": "Open."}, {"speaker": "agent", "said": "Done."}]
    path = lines(tmp_path / "rows.jsonl", [{"messages": turns}])
    options = {"message": {"role": "speaker", "content": "said"}, "roles": {"customer": "user", "agent": "assistant"}}
    record = catalogue(path, **options).rows("mine").records[0]
    assert record["messages"] == [{"role": "user", "content": "Open."}, {"role": "assistant", "content": "Done."}]


def test_text_becomes_messages_where_the_user_asks_for_it(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"question": "Open.", "answer": "Done."}])
    record = catalogue(path, chat=True, system="Be brief.").rows("mine").records[0]
    assert record["prompt"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Open."}]
    assert record["completion"] == [{"role": "assistant", "content": "Done."}]


def test_filters_keep_values_and_ranges_and_count_what_they_leave_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 3}", "lang": "en" if i % 2 else "de", "meta": {"score": i}} for i in range(12)]
    path = lines(tmp_path / "rows.jsonl", rows)
    found = catalogue(path, filter={"lang": "en", "meta.score": {"min": 3, "max": 9}}).rows("mine")
    assert [row["meta"]["score"] for row in found.records] == [3, 5, 7, 9]
    assert f"{path}: 6 of 12 rows have another `lang` and were left out" in found.notes
    assert len(catalogue(path, filter={"lang": ["en", "de"]}).rows("mine")) == 12
    with pytest.raises(DataError, match="0 of 12 rows are usable"):
        catalogue(path, filter={"meta.score": True}).rows("mine")  # 1 is not `true`
    unique = catalogue(path, unique=True).rows("mine")
    assert [row["prompt"] for row in unique.records] == ["p0", "p1", "p2"]
    assert unique.sha256 != found.sha256


def test_a_held_out_share_is_the_same_prompts_whatever_else_is_in_the_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"prompt {i // 2}", "completion": f"{i}"} for i in range(400)]
    path = lines(tmp_path / "rows.jsonl", rows)
    mine = catalogue(path, heldout=0.2)
    kept, held = (mine.rows(f"mine/{split}") for split in ("train", "heldout"))
    prompts = [{row["prompt"] for row in found.records} for found in (kept, held)]
    assert not prompts[0] & prompts[1], "two rows of one prompt never part"
    assert len(kept) + len(held) == 400
    assert 50 < len(held) < 110
    assert mine.rows("mine").sha256 == kept.sha256, "the name alone is what training reads"
    more = catalogue(lines(tmp_path / "more.jsonl", [{"prompt": "new", "completion": "x"}, *rows[::-1]]), heldout=0.2)
    assert prompts[1] <= {row["prompt"] for row in more.rows("mine/heldout").records}
    with pytest.raises(DataError, match="'mine' has no split 'test' → splits: train, heldout"):
        mine.exists("mine/test")
    with pytest.raises(DataError, match="no `heldout` share"):
        catalogue(path).exists("mine/heldout")


def test_a_mixture_has_its_shares_and_every_row(tmp_path: Path) -> None:
    small = lines(tmp_path / "small.jsonl", [{"prompt": f"s{i}"} for i in range(7)])
    large = lines(tmp_path / "large.jsonl", [{"prompt": f"l{i}"} for i in range(50)])
    parts = [{"path": small, "weight": 1}, {"path": large, "weight": 3}]
    found = catalogue(parts).rows("mine")  # type: ignore[arg-type]
    drawn = [row["prompt"] for row in found.records]
    assert drawn.count("l3") == 1
    assert set(drawn) == {f"s{i}" for i in range(7)} | {f"l{i}" for i in range(50)}
    assert sum(one.startswith("s") for one in drawn) == round(50 / 3)
    assert any("an epoch has 67 rows" in note for note in found.notes)
    assert found.place(8).endswith("small.jsonl row 2")
    assert len(catalogue([small, large]).rows("mine")) == 57  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"an epoch with every row at least once and these weights has [\d,]+ rows"):
        catalogue([{"path": small, "weight": 1}, {"path": large, "weight": 1e-9}]).rows("mine")  # type: ignore[arg-type]


# -- folders, patterns and splits


def test_a_folder_is_read_by_its_splits(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        lines(tmp_path / f"{name}.jsonl", [{"prompt": name}])
    (tmp_path / "README.md").write_text("nothing")
    (tmp_path / ".hidden.jsonl").write_text("no row")
    found = Catalogue().rows(str(tmp_path))
    assert [row["prompt"] for row in found.records] == ["train-00000-of-00002", "train-00001-of-00002"]
    assert found.notes == (f"{tmp_path}: reading the split 'train'; there is also 'test'",)
    assert len(Catalogue().rows(f"{tmp_path}?split=test")) == 1
    assert len(Catalogue().rows(f"{tmp_path}?split=train[1:]")) == 1
    assert len(Catalogue().rows(f"{tmp_path}?split=[:50%]")) == 1
    assert len(Catalogue().rows(f"{tmp_path}/*-of-00002.jsonl")) == 2
    assert [rows.name for rows in Catalogue().others(str(tmp_path))] == [f"{tmp_path}?split=test"]
    with pytest.raises(DataError, match=r"there is no split 'tests'; did you mean 'test'.*splits: test, train"):
        Catalogue().exists(f"{tmp_path}?split=tests")
    with pytest.raises(DataError, match="no file has such a name"):
        Catalogue().exists(f"{tmp_path}/*.csv")
    with pytest.raises(DataError, match="files have no option 'spilt'; did you mean 'split'"):
        Catalogue().exists(f"{tmp_path}?spilt=test")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["dev.jsonl", "test.jsonl"], "has the splits 'validation', 'test' → say which: "),
        (["a.jsonl", "b.txt"], "has files of 2 formats: jsonl, text"),
        (["notes.md"], "the folder has no data file → it holds notes.md"),
        ([], "the folder has no data file → it holds nothing"),
    ],
)
def test_a_folder_that_does_not_say_what_to_read(tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        lines(tmp_path / name, [{"prompt": "a"}])
    with pytest.raises(DataError) as said:
        Catalogue().exists(str(tmp_path))
    assert words in str(said.value)


def test_names_of_splits_are_those_that_people_use(tmp_path: Path) -> None:
    for name in ("train_prefs-00000-of-00001.jsonl", "test_prefs-00000-of-00001.jsonl", "en/val.jsonl", "en/training.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        lines(tmp_path / name, [{"prompt": name}])
    assert Catalogue().rows(f"{tmp_path}?split=test_prefs").records[0]["prompt"].startswith("test_prefs")
    assert Catalogue().rows(f"{tmp_path}?subset=en&split=dev").records[0]["prompt"] == "en/val.jsonl"
    assert Catalogue().rows(f"{tmp_path}?subset=en").records[0]["prompt"] == "en/training.jsonl"
    with pytest.raises(DataError, match=r"has no subset 'de'.*its folders: en"):
        Catalogue().exists(f"{tmp_path}?subset=de")


def test_dataset_info_json_names_files_columns_and_speakers(tmp_path: Path) -> None:
    lines(tmp_path / "own.jsonl", [{"ask": "Open.", "say": "Done.", "sys": "Be brief."}])
    lines(tmp_path / "talk.jsonl", [{"talk": [{"who": "H", "what": "Open."}, {"who": "A", "what": "Done."}]}])
    info = {
        "own": {"file_name": "own.jsonl", "columns": {"prompt": "ask", "response": "say", "system": "sys"}},
        "talk": {
            "file_name": "talk.jsonl", "formatting": "sharegpt", "columns": {"messages": "talk"},
            "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "H", "assistant_tag": "A"},
        },
        "hub": {"hf_hub_url": "org/name"},
    }  # fmt: skip
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    path = f"{tmp_path}/dataset_info.json"
    own = Catalogue().rows(f"{path}?subset=own").records[0]
    assert own["prompt"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Open."}]
    talk = Catalogue().rows(f"{tmp_path}?subset=talk").records[0]
    assert talk["conversations"] == [{"role": "user", "content": "Open."}, {"role": "assistant", "content": "Done."}]
    for name, words in (("", "describes own, talk, hub"), ("?subset=onw", "did you mean 'own'"), ("?subset=hub", "is on a hub")):
        with pytest.raises(DataError, match=words):
            Catalogue().exists(path + name)


# -- what a stranger's files taught


def test_a_system_column_begins_the_conversation_whatever_the_shape(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    rows = {
        "conversations": [{"conversations": turns, "system": "Be brief."}],
        "prompt": [{"question": "a", "answer": "b", "system": "Be brief."}],
        "chosen": [{"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}], "system": "Be brief."}],
    }
    for field, row in rows.items():
        record = Catalogue().rows(lines(tmp_path / f"{field}.jsonl", row)).records[0]
        assert record[field][0] == system, field
    empty = Catalogue().rows(lines(tmp_path / "empty.jsonl", [{"prompt": "a", "system": ""}, {"prompt": "b", "system": "s"}]))
    assert empty.records[0]["prompt"] == "a"


def test_files_of_no_split_beside_a_split_are_never_left_out_without_a_word(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "my_train.jsonl"):
        lines(tmp_path / name, [{"prompt": name}])
    with pytest.raises(DataError, match=r"files of no split, 'train' → say which: .*\?split=train, or name a pattern"):
        Catalogue().exists(str(tmp_path))
    assert len(Catalogue().rows(f"{tmp_path}/*.jsonl")) == 3
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "broken.jsonl").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"no data file .*broken\.jsonl"):
        Catalogue().exists(f"{tmp_path}/sub")


def test_one_answer_without_a_rating_leaves_its_row_out_and_not_the_file(tmp_path: Path) -> None:
    good = SHAPES["ultrafeedback"].row
    odd: dict[str, Any] = json.loads(json.dumps(good))
    odd["completions"][0]["annotations"] = {"honesty": {"Rating": "N/A"}}
    path = lines(tmp_path / "rows.jsonl", [good, odd, {**good, "completions": good["completions"][:1]}, {**good, "completions": []}])
    found = Catalogue().rows(path)
    assert len(found) == 1
    assert any("3 of 4 rows prefer no answer" in note for note in found.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"filter": {"lang": "fr"}}, "0 of 6 rows are usable"),
        ({"split": "[99:]"}, "the part of its rows that `split` names is empty"),
        ({"heldout": 0.999}, "none of 6 rows is in this part"),
    ],
)
def test_the_first_rows_refuse_what_all_rows_refuse(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"prompt": f"p{i}", "completion": "x", "lang": "en"} for i in range(6)])
    with pytest.raises(DataError, match=words):
        catalogue(path, **options).first("mine")


def test_the_first_rows_are_those_that_training_reads(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"prompt": f"p{i}", "completion": "x"} for i in range(6)])
    [(where, record), *_] = catalogue(path, split="[4:]").first("mine")
    assert (record["prompt"], where) == ("p4", f"{path} row 5")
    many = lines(tmp_path / "many.jsonl", [{"prompt": f"p{i}", "completion": "x"} for i in range(500)])
    mine = catalogue(many, heldout=0.5)
    both = [{record["prompt"] for _, record in mine.first(name)} for name in ("mine", "mine/heldout")]
    assert both[0]
    assert both[1]
    assert not both[0] & both[1]


def test_an_empty_name_is_one_sentence() -> None:
    with pytest.raises(DataError, match="an empty text is not the name of data"):
        Catalogue().exists("")


def test_a_written_experiment_reads_what_the_experiment_read(tmp_path: Path) -> None:
    """A finished run is evaluated and exported from experiment.json, where each source has every option."""
    path = lines(tmp_path / "rows.jsonl", [{"question": "a", "better": "b", "worse": "c"}])
    columns = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    spec = DataSpec.model_validate({"path": path, "columns": columns, "chat": True})
    again = DataSpec.model_validate(json.loads(spec.model_dump_json()))
    first, second = (Catalogue(named={"mine": each}).rows("mine") for each in (spec, again))
    assert first.sha256 == second.sha256
    assert "rejected" in second.records[0]
