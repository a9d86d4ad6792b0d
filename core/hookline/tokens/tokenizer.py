"""Tokenizers: byte-level BPE that is trained for the run and saved with it, or a local folder. Nothing is
downloaded."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hookline.batch.encoded import Record
from hookline.config.experiment import TokenizerSpec
from hookline.data.rows import Rows
from hookline.errors import DataError, ExperimentError, shorten
from hookline.storage.disguised import pointer
from hookline.storage.paths import model_folder
from hookline.tokens.chat import ChatTemplate
from hookline.tokens.pretrained import FILES, OWN, Pretrained, check_model, json_of, pretrained, template_text

__all__ = ["Tokenizer", "choices_of"]

EOS, PAD, SEPARATOR = "<|end|>", "<|pad|>", "<|answer|>"
BEGINS = ("<s>", "<|startoftext|>", "<|begin_of_text|>", "<|endoftext|>", EOS, "</s>")
ENDS = (EOS, "</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<eos>")
PROBE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
FIELDS = ("text", "prompt", "completion")
"""The fields of a row that byte-level BPE is trained on; it represents any other text as well."""
ANSWERS = ("chosen", "rejected")
"""The other text fields of a row; a tokenizer of words needs their words, and those of `turns`, too."""


class Tokenizer:
    """A tokenizer of the library `tokenizers`: one that was trained here, or that of a model folder, as the folder says.

    Padding is recognised by position and mask, not by id, so the padding token may be the same as `eos`.
    """

    def __init__(self, inner: Any, folder: Path | None = None, choices: Mapping[str, Any] | None = None) -> None:
        """folder: the folder that the tokenizer is from, unless it was trained here; choices: what the experiment says of
        `eos`, `pad` and `chat_template`."""
        self.inner = inner
        """The `tokenizers.Tokenizer` itself."""
        self.folder: Path | None = folder
        """The folder that the tokenizer is from; None if it was trained here."""
        self.choices: dict[str, Any] = dict(choices or {})
        """What the experiment says instead of the folder: `eos`, `pad`, `chat_template`."""
        self.separator: int | None = inner.token_to_id(SEPARATOR)
        """The id of the token between a prompt and its answer; None for tokenizers without one."""
        self.chat: ChatTemplate | None = None
        """The chat template; None for tokenizers without one."""
        self.decided: tuple[str, ...] = ()
        """What was decided about a folder's tokenizer, and which file says so."""
        self._words = type(inner.model).__name__ == "WordLevel" and inner.model.unk_token == PAD
        if folder is None or self._is_own():
            self.bos: int | None = self._find(*BEGINS)
            """The id of the token that begins a text; None if nothing does."""
            self.ends: tuple[int, ...] = (self._find(*ENDS),)
            """The ids of the tokens that end an answer; the first ends a text."""
            self.prefix: list[int] = [self.bos]
            """The ids before the tokens of a prompt."""
            pad = inner.token_to_id(PAD)
            self.pad: int = self.ends[0] if pad is None else int(pad)
        else:
            self._read(folder)
        self.inner.no_truncation()
        self.inner.no_padding()
        if getattr(self.inner.model, "dropout", None):
            self.inner.model.dropout = None
        # text that looks like a special token is encoded as text; tokenizer.json does not store this
        self.inner.encode_special_tokens = True

    def _is_own(self) -> bool:
        """Whether Hookline trained it."""
        return bool(self._words) or {SEPARATOR, PAD, EOS} <= self.inner.get_vocab().keys()

    def _find(self, *names: str) -> int:
        found = next((i for i in map(self.inner.token_to_id, names) if i is not None), None)
        if found is None:
            raise DataError("the tokenizer has no token that ends a text", f"add one of {', '.join(names)} to it")
        return int(found)

    def _read(self, folder: Path) -> None:
        """Take over what a folder says."""
        found = pretrained(folder, self.inner, self.choices)
        self.inner = inner = getattr(found.outer, "backend_tokenizer", self.inner)
        self.prefix, decided = found.prefix, found.decided
        self.bos = found.prefix[0] if found.prefix else found.outer.bos_token_id
        ends = list(found.ends)
        if not ends:
            ends = [self._find(*ENDS)]
            decided.append(f"answers end with {inner.id_to_token(ends[0])}, guessed from its name: no file says it")
        if found.template:
            self._render(found, ends, decided)
        self.ends, self.decided = tuple(ends), tuple(decided)
        self.pad = ends[0] if found.pad is None else found.pad

    def _render(self, found: Pretrained, ends: list[int], decided: list[str]) -> None:
        """Make the chat template, and let the token with which it ends a turn end answers too."""
        rendered = type(self.inner).from_str(self.inner.to_str())  # what a template writes are tokens, not text
        rendered.no_truncation()
        rendered.no_padding()

        def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
            encoding = rendered.encode(text, add_special_tokens=False)
            return encoding.ids, encoding.offsets

        self.chat = ChatTemplate(
            found.template,
            found.source,
            dict(found.outer.special_tokens_map),
            encode,
            ends,
            {i for i, token in rendered.get_added_tokens_decoder().items() if token.special},
            self.decode,
            rendered.id_to_token,
            found.for_tools,
            replies=getattr(found.outer, "response_template", None),
        )
        try:
            ids, chosen = self.chat.turns(PROBE, "a probe")
        except DataError:
            return
        end = next((token for token, own in zip(reversed(ids), reversed(chosen)) if own), None)
        if end is not None and end in self.chat.control and end not in ends and "eos" not in self.choices:
            ends.append(end)
            decided.append(f"answers end with {self.inner.id_to_token(end)} too, as {found.source} ends a turn with it")

    @property
    def eos(self) -> int:
        """The id of the token that ends a text."""
        return self.ends[0]

    @functools.cached_property
    def vocabulary(self) -> int:
        """One more than the largest token id, i.e. the rows that an embedding needs; ids may have gaps."""
        return 1 + max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1)

    @functools.cached_property
    def gaps(self) -> list[int]:
        """Ids below `vocabulary` that no token has."""
        known = set(self.inner.get_vocab(with_added_tokens=True).values())
        return [i for i in range(self.vocabulary) if i not in known]

    @property
    def special(self) -> dict[str, int]:
        """`bos_token_id`, `eos_token_id` and `pad_token_id`, as a model's config names them."""
        return {
            "bos_token_id": self.eos if self.bos is None else self.bos,
            "eos_token_id": self.eos,
            "pad_token_id": self.pad,
        }

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens; text that looks like one is encoded as text.

        Raises DataError for a word that a tokenizer of words does not know.
        """
        self._know(text)
        return self._as_text(text, self.inner.encode(text, add_special_tokens=False).ids)

    def _as_text(self, text: str, ids: list[int]) -> list[int]:
        """The ids of a text; where a model of whole pieces took a part of it for a special token, that part is divided."""
        taken = self._control.intersection(ids)
        if not taken:
            return ids
        looks = next((name for token in taken if (name := self.inner.id_to_token(token)) in text), None)
        if looks is None or len(looks) < 2:
            return ids  # the text's own, e.g. an unknown character
        if self._words:
            raise DataError(f"the word '{looks}' is a special token of the tokenizer of words", "write it otherwise, or use bpe")
        at = text.index(looks) + 1
        return self.encode(text[:at]) + self.encode(text[at:])

    @functools.cached_property
    def _control(self) -> frozenset[int]:
        """The ids of special tokens that text must not become."""
        special = {i for i, token in self.inner.get_added_tokens_decoder().items() if token.special}
        return frozenset({*special, *self.ends} - {self.unknown})

    @functools.cached_property
    def unknown(self) -> int | None:
        """The id that words without a token become; None if every text has tokens."""
        token = getattr(self.inner.model, "unk_token", None)
        found: int | None = self.inner.token_to_id(token) if token else None
        return found

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each of many texts; faster than calling `encode` for each."""
        for text in texts:
            self._know(text)
        found = self.inner.encode_batch(list(texts), add_special_tokens=False)
        return [self._as_text(text, one.ids) for text, one in zip(texts, found)]

    def _know(self, text: str) -> None:
        """Refuse a word without a token, which would be encoded as padding."""
        unknown = (
            next((word for word in text.split() if self.inner.token_to_id(word) is None), None) if self._words else None
        )
        if unknown is not None:
            raise DataError(
                f"the word '{shorten(unknown)}' is not in the vocabulary of the tokenizer of words",
                "train the tokenizer on data that contains it, or use bpe",
            )

    def prompt(self, text: str) -> list[int]:
        """Token ids of a prompt as the model sees it: what begins a text, the text, and the separator before the answer."""
        end = [] if self.separator is None else [self.separator]
        return [*self.prefix, *self.encode(text), *end]

    def answer(self, text: str) -> list[int]:
        """Token ids of a response as the model should give it, including the ending token."""
        return [*self.encode(text), self.eos]

    def pair(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        """Token ids of a prompt and its answer; without a separator, an answer is encoded behind its prompt."""
        first = self.prompt(prompt)
        if self.separator is not None or self._words:
            return first, self.answer(answer)
        whole = [*self.prefix, *self.encode(prompt + answer), self.eos]
        return (first, whole[len(first) :]) if whole[: len(first)] == first else (first, self.answer(answer))

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """The text of token ids; special: with the special tokens, such as those that a chat template writes."""
        return str(self.inner.decode(list(ids), skip_special_tokens=not special))

    def save(self, folder: Path) -> None:
        """Write the tokenizer to an existing folder: the files of the folder that it is from, unchanged, or tokenizer.json."""
        if self.folder is None or self._is_own():
            self.inner.save(str(folder / "tokenizer.json"), pretty=False)
            return
        for name in (*FILES, "config.json"):
            self._copy(name, folder)
        own = {**self.choices, **({"source": self.chat.source} if self.chat else {})}
        if own:
            (folder / OWN).write_text(json.dumps(own), encoding="utf-8")

    def export(self, folder: Path) -> None:
        """Write the tokenizer in the format that transformers' AutoTokenizer reads.

        A folder's own files are copied unchanged; what the experiment chose instead, and ends that they do not name, are
        written into them.
        """
        from transformers import PreTrainedTokenizerFast

        if self.folder is None or self._is_own():
            words = {"bos_token": self.inner.id_to_token(self.bos), "eos_token": self.inner.id_to_token(self.eos)}
            pad = PAD if self.inner.token_to_id(PAD) else words["eos_token"]
            PreTrainedTokenizerFast(tokenizer_object=self.inner, pad_token=pad, **words).save_pretrained(folder)
            return
        for name in FILES:
            self._copy(name, folder)
        self._write_choices(folder)

    def _copy(self, name: str, folder: Path) -> None:
        """Copy a file, or a folder of files, of the folder that the tokenizer is from."""
        assert self.folder is not None
        if (self.folder / name).is_file():
            shutil.copy(self.folder / name, folder / name)
        elif (self.folder / name).is_dir():
            shutil.copytree(self.folder / name, folder / name, dirs_exist_ok=True)

    def _write_choices(self, folder: Path) -> None:
        settings, generation = folder / "tokenizer_config.json", folder / "generation_config.json"
        about = json_of(settings)
        changed = dict(about)
        if "eos" in self.choices or "eos_token" not in about:
            changed["eos_token"] = self.inner.id_to_token(self.eos)
        if "pad" in self.choices:
            changed["pad_token"] = self.inner.id_to_token(self.pad)
        if "chat_template" in self.choices:
            changed.pop("chat_template", None)
            (folder / "chat_template.jinja").write_text(self.choices["chat_template"], encoding="utf-8")
        if not about:
            changed["tokenizer_class"] = "PreTrainedTokenizerFast"
        if changed != about:
            settings.write_text(json.dumps(changed, indent=2, ensure_ascii=False), encoding="utf-8")
        when = json_of(generation)
        listed = when.get("eos_token_id")
        if set(listed if isinstance(listed, list) else [listed]) != set(self.ends):
            ends = list(self.ends) if len(self.ends) > 1 else self.eos
            generation.write_text(json.dumps({**when, "eos_token_id": ends}, indent=2), encoding="utf-8")

    @staticmethod
    def file(folder: str | Path) -> Path:
        """The path of a folder's tokenizer.json. Raises ExperimentError if there is no folder, DataError if there is no
        file."""
        path = Path(folder) / "tokenizer.json"
        if not Path(folder).is_dir():
            raise ExperimentError(f"no tokenizer folder {folder}", "give a local folder; nothing is downloaded")
        if not path.is_file():
            raise DataError(
                f"{folder} contains no tokenizer.json",
                "save a fast tokenizer there, or train one: tokenizer: {train: bpe, on: …}",
            )
        return path

    @classmethod
    def load(cls, folder: Path, choices: Mapping[str, Any] | None = None) -> Tokenizer:
        """Load the tokenizer of a folder. choices: what an experiment says instead; default: what the folder keeps.

        Raises ExperimentError if there is no folder, DataError if it cannot be read."""
        from tokenizers import Tokenizer as Inner

        path = cls.file(folder)
        if wrong := pointer(path):
            raise DataError(*wrong)
        if choices is None and (folder / OWN).is_file():
            choices = json_of(folder / OWN)
        source = (choices or {}).get("source", "")  # the user's own file, of which this may be a copy
        try:
            made = cls(Inner.from_file(str(path)), folder, {k: v for k, v in (choices or {}).items() if k != "source"})
            if made.chat and source:
                made.chat.source = source
            return made
        except DataError as err:
            raise DataError(f"{path}: {err.message}", err.hint) from None
        except Exception as err:
            why = " ".join(str(err).split())[:200]
            raise DataError(
                f"{path} cannot be read: {why}", "check that the file is a complete tokenizer.json"
            ) from err

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> Tokenizer:
        """Train byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2). The same texts give the same tokenizer.

        The same token begins and ends a text, as in GPT-2.
        """
        from tokenizers import Tokenizer as Inner
        from tokenizers import decoders, models, pre_tokenizers, trainers

        inner = Inner(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[EOS, PAD, SEPARATOR],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    @classmethod
    def words(cls, texts: Iterable[str], most: int) -> Tokenizer:
        """Make a tokenizer with one token per word, in sorted order, and without a separator between prompt and
        answer."""
        from tokenizers import Tokenizer as Inner
        from tokenizers import models, pre_tokenizers

        found = sorted({word for text in texts for word in text.split()})
        if len(found) + 2 > most:
            raise DataError(
                f"the texts contain {len(found)} different words, more than the vocabulary of {most}", "use bpe"
            )
        inner = Inner(models.WordLevel({word: i for i, word in enumerate([EOS, PAD, *found])}, unk_token=PAD))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        inner.add_special_tokens([EOS, PAD])
        return cls(inner)

    @classmethod
    def make(cls, spec: TokenizerSpec | None, model_path: str | None, rows: Rows | None) -> Tokenizer:
        """Make the experiment's tokenizer. rows: the rows of `spec.on`, if a tokenizer is to be trained."""
        if spec is None or spec.path or rows is None:
            made = cls.load(Path((spec.path if spec else model_path) or ""), choices_of(spec))
            if spec and spec.path and model_path:
                check_model(Path(spec.path), made.inner, Path(model_folder(model_path)))
            return made
        words = spec.train == "words"
        texts = (text for record in rows.records for text in _texts(record, words))
        first = next(texts, None)
        if first is None:
            fields = [*FIELDS, *(ANSWERS if words else ())]
            raise DataError(
                f"{rows.name}: no row has {', '.join(map(repr, fields[:-1]))} or {fields[-1]!r} to train a tokenizer on",
                "name another source",
            )
        return (cls.words if words else cls.train)(chain([first], texts), spec.vocabulary)


def choices_of(spec: TokenizerSpec | None) -> dict[str, Any]:
    """What an experiment says about a folder's tokenizer."""
    if spec is None:
        return {}
    found: dict[str, Any] = {"eos": list(spec.eos)} if spec.eos else {}
    if spec.pad is not None:
        found["pad"] = spec.pad
    if spec.chat_template is not None:
        found |= {"chat_template": template_text(spec.chat_template), "source": str(spec.chat_template)}
    return found


def _texts(record: Record, words: bool) -> Iterator[str]:
    """The texts of a row that a tokenizer is trained on; a tokenizer of words is trained on all of them."""
    turns = record.get("turns") if words else None
    parts = [part for turn in turns if isinstance(turn, list) for part in turn] if isinstance(turns, list) else []
    values = [record.get(key) for key in (*FIELDS, *(ANSWERS if words else ()))]
    yield from (value for value in (*values, *parts) if isinstance(value, str) and value)
