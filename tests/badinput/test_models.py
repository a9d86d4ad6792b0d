"""Models and tokenizers that do not fit, are not whole, or want to run code (MT1 to MT20, CK32)."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from badinput_lab import WORDS, Lab, refused
from tokenizers import Tokenizer as Inner

from hookline.tokens.tokenizer import Tokenizer


def tokenizer(folder: Path, special: list[str] | None = None) -> Inner:
    """A byte-level tokenizer with these special tokens only, saved."""
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<|endoftext|>"] if special is None else special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(WORDS * 3, trainer)
    folder.mkdir(exist_ok=True)
    inner.save(str(folder / "tokenizer.json"))
    return inner


@pytest.fixture
def folder(lab: Lab) -> Path:
    """A tiny GPT-2 with its tokenizer, as save_pretrained leaves it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    path = lab.folder / "model"
    inner = tokenizer(path)
    torch.manual_seed(0)
    size = inner.get_vocab_size()
    config = GPT2Config(vocab_size=size, n_positions=64, n_embd=32, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(path)
    return path


def on(lab: Lab, steps: int = 1, **model: Any) -> dict[str, Any]:
    made = lab.sft(steps)
    made["model"] = {"path": "model", **model}
    del made["tokenizer"]
    return made


def configured(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_whole_folder_trains(lab: Lab, folder: Path) -> None:
    said = lab.run(on(lab))
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "holds no weights"),
        ("tokenizer.json", "contains no tokenizer.json"),
        ("", "no model folder model"),
    ],
)
def test_MT_missing_files_are_known_before_anything_is_loaded(lab: Lab, folder: Path, gone: str, words: str) -> None:
    (folder / gone).unlink() if gone else folder.rename(lab.folder / "elsewhere")
    for verb in ("explain", "run"):
        said = lab.hookline(verb, lab.write(on(lab)))
        refused(said, 3 if "tokenizer" in gone else 2, words, "tiny.yaml line")
    assert not (lab.folder / "runs").exists()


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("config.json", b"", "config.json cannot be read"),
        ("config.json", b"[]", "it has no model_type"),
        ("config.json", b"{}", "it has no model_type"),
        ("config.json", b"[" * 100_000, "config.json cannot be read"),
        ("config.json", b"\xff\xfe{}", "config.json cannot be read"),
        ("config.json", b'{"model_type": "no-such-thing"}', "cannot be loaded"),
        ("config.json", b'{"model_type": "gpt2", "n_embd": "wide"}', "cannot be loaded"),
        ("config.json", b'{"model_type": "gpt2", "n_embd": 33, "n_head": 2, "n_layer": 1}', "cannot be loaded"),
        ("model.safetensors", b"", "cannot be loaded"),
        ("model.safetensors", b"\xff" * 64, "cannot be loaded"),
        ("model.safetensors", (1 << 60).to_bytes(8, "little") + b"{}", "cannot be loaded"),
        ("tokenizer.json", b"", "tokenizer.json cannot be read"),
        ("tokenizer.json", b'{"version": "1.0"}', "tokenizer.json cannot be read"),
        ("tokenizer.json", b"\x00" * 99, "tokenizer.json cannot be read"),
    ],
)
def test_CK14_damaged_files_of_a_folder(lab: Lab, folder: Path, name: str, raw: bytes, words: str) -> None:
    (folder / name).write_bytes(raw)
    said = lab.run(on(lab))
    refused(said, 3 if "tokenizer" in name else 2, words, "model")
    assert len(said.sentence) < 500


def test_CK13_a_pickle_is_not_opened(lab: Lab, folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    refused(lab.run(on(lab)), 2, "holds only pytorch_model.bin, which would have to be unpickled", "safetensors")
    assert not (lab.folder / "opened").exists()


def test_MT13_weights_that_are_absent_do_not_start_random(lab: Lab, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors = {k: v for k, v in tensors.items() if "ln_f" not in k}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(lab.run(on(lab)), 2, "the weights in model lack transformer.ln_f.bias, transformer.ln_f.weight")


def test_weights_of_another_shape_are_named_with_both_shapes(lab: Lab, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "n_positions": 7}), encoding="utf-8")
    refused(lab.run(on(lab)), 2, "the weight transformer.wpe.weight has the shape [", "config.json describes [7, ")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_git_lfs_pointer_is_named_as_what_it_is(lab: Lab, folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    said = lab.hookline("explain", lab.write(on(lab)))
    refused(said, 2, f"{name} is a Git-LFS pointer, not the file itself", "git lfs pull")


@pytest.mark.parametrize("verb", ["explain", "run"])
@pytest.mark.parametrize(
    "asks",
    [
        {"auto_map": {"AutoModelForCausalLM": "mine.Evil"}},
        {"auto_map": {"AutoConfig": "someone/else--mine.Evil"}},
        {"auto_map": ["mine.Evil"]},
        {"auto_map": "mine.Evil"},
        {"_attn_implementation_internal": "someone/kernels"},
        {"attn_implementation": "someone/kernels:attention"},
        {"text_config": {"attn_implementation": "someone/kernels@main"}},
        {"text_config": {"auto_map": {"AutoModel": "mine.Evil"}}},
    ],
)
def test_MT17_and_CK32_a_folders_own_code_is_refused_and_not_imported(
    lab: Lab, folder: Path, asks: dict[str, Any], verb: str
) -> None:
    (folder / "mine.py").write_text("open('imported', 'w').close()\nclass Evil: pass\n")
    configured(folder, **asks)
    refused(lab.hookline(verb, lab.write(on(lab))), 2, "asks to run its own code", "never runs a model folder's code")
    assert not (lab.folder / "imported").exists()
    assert not any(name.split(".")[-1] == "mine" for name in sys.modules)


def test_MT17_the_tokenizers_own_code_is_not_even_looked_at(lab: Lab, folder: Path) -> None:
    (folder / "mine.py").write_text("open('imported', 'w').close()\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["mine.Evil", None]}}))
    assert lab.run(on(lab)).code == 0
    assert not (lab.folder / "imported").exists()


@pytest.mark.parametrize("verb", ["generate", "chat"])
def test_MT17_a_folder_that_is_asked_does_not_run_its_code_either(lab: Lab, folder: Path, verb: str) -> None:
    (folder / "mine.py").write_text("open('imported', 'w').close()\n")
    configured(folder, auto_map={"AutoModelForCausalLM": "mine.Evil"})
    refused(lab.hookline(verb, "model", *(["open"] if verb == "generate" else [])), 2, "asks to run its own code")
    assert not (lab.folder / "imported").exists()


def test_MT11_a_tokenizer_with_other_ids_than_the_models_own_is_refused(lab: Lab, folder: Path) -> None:
    tokenizer(lab.folder / "other", ["<odd>", "<|endoftext|>"])
    refused(
        lab.run({**on(lab), "tokenizer": {"path": "other"}}), 2, "other is not that of the model in ",
        "token 0 is '<odd>' in one and '<|endoftext|>' in the other",
    )  # fmt: skip
    shutil.copytree(folder, lab.folder / "same")
    (lab.folder / "same" / "model.safetensors").unlink()
    said = lab.run({**on(lab), "tokenizer": {"path": "same"}})
    assert said.code == 0, said.err


@pytest.mark.parametrize("whole", [False, True])
def test_MT14_an_adapter_is_no_model_and_its_base_is_named(lab: Lab, folder: Path, whole: bool) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
    if not whole:
        (folder / "config.json").unlink()
    said = ("not a model of its own", "merge it") if whole else ("which is not a folder here", "merge: ")
    refused(lab.run(on(lab)), 2, "model holds an adapter of the model someone/base", *said)


def test_MT14_an_adapter_is_not_exported_for_a_base_that_has_changed(lab: Lab, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    made = on(lab)
    made["phases"][0]["model"] = {"adapter": {"lora": {"rank": 2}}}
    assert lab.run(made).code == 0
    said = lab.hookline("export", str(lab.run_folder), "before", "--adapter")
    assert said.code == 0, said.err
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v + 1 for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    said = lab.hookline("export", str(lab.run_folder), "after", "--adapter")
    refused(said, 2, "model is not the model that this adapter was trained on: it has changed since the run began")
    assert lab.hookline("export", str(lab.run_folder), "merged").code == 0


def test_MT_a_tokenizer_larger_than_the_model_shows_both_sizes(lab: Lab, folder: Path) -> None:
    inner = tokenizer(folder)
    size = inner.get_vocab_size()
    inner.add_tokens([f"word{i}" for i in range(7)])
    inner.save(str(folder / "tokenizer.json"))
    refused(lab.run(on(lab)), 2, f"the tokenizer has {size + 7} tokens, but the model in model has only {size}")


def test_MT_a_tokenizer_that_ends_no_text_is_refused(lab: Lab, folder: Path) -> None:
    tokenizer(folder, ["<odd>"])
    configured(folder, eos_token_id=None)
    for name in ("generation_config.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    refused(lab.run(on(lab)), 3, "tokenizer.json: the tokenizer has no token that ends a text", "<|endoftext|>")


def test_MT1_and_MT2_without_pad_the_eos_is_learned_and_the_padding_is_not(lab: Lab, folder: Path) -> None:
    """pad == eos is harmless: masks go by position, so the one eos that ends an answer has its loss, the filler none."""
    made = Tokenizer.load(folder)
    assert made.special == {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    lab.rows(
        "pairs.jsonl", [{"prompt": "open", "completion": "x"}, {"prompt": "close", "completion": "To close a file."}]
    )
    (lab.folder / "seen.json").unlink(missing_ok=True)
    watch = lab.plugin(
        """
import json
from hookline import Component, hookimpl

class Watch(Component):
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        open("seen.json", "w").write(json.dumps([batch.token_ids_BT.tolist(), batch.mask_BT.tolist()]))
        return (yield)
""",
        "watch.py",
    )
    experiment = on(lab)
    experiment["phases"][0] |= {"wrap": "watch", "rollout": {"use": "dataset", "path": "pairs.jsonl", "rows": 2}}
    said = lab.run(experiment, "-p", watch)
    assert said.code == 0, said.err
    ids, mask = json.loads((lab.folder / "seen.json").read_text())
    for row, chosen in zip(ids, mask):
        length = sum(chosen)
        assert chosen == [True] * length + [False] * (len(row) - length)
        assert row[length - 1] == made.eos
        assert made.eos not in row[: length - 1]
    assert sorted(sum(chosen) for chosen in mask) == sorted(
        len(made.answer(text)) for text in ("x", "To close a file.")
    )


def test_MT2_a_model_learns_to_stop_though_pad_is_eos(lab: Lab, folder: Path) -> None:
    lab.rows("pairs.jsonl", [{"prompt": "open", "completion": "x"}])
    experiment = on(lab, steps=60)
    experiment["phases"][0] |= {"update": {"use": "sft", "lr": 1e-2}, "save": {"every": 99}}
    stops = {"use": "generate", "prompts": "pairs.jsonl", "rows": 2, "max_new_tokens": 8, "top_k": 1}
    experiment["phases"][0]["evaluate"] = [{"rollout": stops, "rows": 1, "reward": ["length"]}]
    said = lab.run(experiment)
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in (lab.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["metrics"]["eval/length"] == 2  # x and the end


def test_MT16_the_context_is_used_to_its_last_position_and_not_beyond(lab: Lab, folder: Path) -> None:
    made = Tokenizer.load(folder)
    experiment = lab.rl(steps=1)
    experiment["model"] = {"path": "model"}
    del experiment["tokenizer"]
    room = 64 - 4 - len(made.prompt(""))
    text = "".join("xq"[i % 2] for i in range(200))
    fits = next(text[:n] for n in range(200, 0, -1) if len(made.encode(text[:n])) == room)
    lab.rows("pairs.jsonl", [{"prompt": fits}])
    said = lab.run(experiment)
    assert said.code == 0, said.err
    lab.rows("pairs.jsonl", [{"prompt": fits + "z"}])
    said = lab.hookline("run", "tiny.yaml", "--out", "run2")
    refused(said, 3, "pairs.jsonl row 1: its prompt has 61 tokens, with 4 new ones there is room for 60")


def test_MT19_a_reference_that_is_not_what_it_was_is_refused(lab: Lab) -> None:
    """A phase's end that was exchanged while a later phase was under way."""
    lab.plugin(
        """
from pathlib import Path
from hookline import Component, hookimpl

class Stops(Component):
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        if ctx.step == 2 and not Path("go").exists():
            raise RuntimeError("enough")
        return (yield)
""",
        "stops.py",
    )
    made = lab.sft(1)
    rl = lab.rl(wrap=["kl-penalty", "stops"])["phases"][0]
    made["phases"].append(rl)
    made["plugins"] = ["./stops.py"]
    assert lab.run(made).code == 5
    (lab.folder / "go").touch()
    from hookline.storage import folders, trees

    phase = lab.run_folder / "phases" / "sft"
    manifest = folders.verify(phase)
    kept = {p.relative_to(phase): p.read_bytes() for p in phase.rglob("*") if p.is_file()}
    tree = copy.deepcopy(trees.load_tree(phase / "model", "model"))
    next(iter(tree.values())).add_(0.5)
    about = {k: v for k, v in manifest.items() if k not in ("format", "files")}
    with folders.write_aside(phase, about) as aside:
        for name, raw in kept.items():
            if name.name != "manifest.json":
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                (aside / name).write_bytes(raw)
        trees.save_tree(aside / "model", "model", tree)
    refused(lab.run(), 4, "frozen role 'reference' of phase 'rl' has changed since the checkpoint was made")
