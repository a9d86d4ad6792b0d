"""Tokenizers: byte-level BPE that is trained for the run and saved with it, or a local folder. Nothing is
downloaded."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hookline.batch.encoded import Record
from hookline.config.experiment import TokenizerSpec
from hookline.data.sources import Rows
from hookline.errors import DataError, ExperimentError, shorten
from hookline.storage.disguised import pointer

__all__ = ["Tokenizer"]

EOS, PAD, SEPARATOR = "<|end|>", "<|pad|>", "<|answer|>"
FIELDS = ("text", "prompt", "completion")
"""The fields of a row that byte-level BPE is trained on; it represents any other text as well."""
ANSWERS = ("chosen", "rejected")
"""The other text fields of a row; a tokenizer of words needs their words, and those of `turns`, too."""


class Tokenizer:
    """A tokenizer of the library `tokenizers`, with named special tokens.

    Padding is recognised by position and mask, not by id, so the padding token may be the same as `eos`.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        """The `tokenizers.Tokenizer` itself."""
        inner.encode_special_tokens = (
            True  # text that looks like a special token is encoded as text; tokenizer.json does not store this
        )
        self.bos = self._find("<s>", "<|startoftext|>", "<|begin_of_text|>", "<|endoftext|>", EOS, "</s>")
        """The id of the token that begins a text."""
        self.eos = self._find(EOS, "</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<eos>")
        """The id of the token that ends a text."""
        self.separator: int | None = inner.token_to_id(SEPARATOR)
        """The id of the token between a prompt and its answer; None for tokenizers without one."""
        self._words = type(inner.model).__name__ == "WordLevel" and inner.model.unk_token == PAD

    def _find(self, *names: str) -> int:
        found = next((i for i in map(self.inner.token_to_id, names) if i is not None), None)
        if found is None:
            raise DataError("the tokenizer has no token that ends a text", f"add one of {', '.join(names)} to it")
        return int(found)

    @functools.cached_property
    def vocabulary(self) -> int:
        """One more than the largest token id, i.e. the rows that an embedding needs; ids may have gaps."""
        return 1 + max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def special(self) -> dict[str, int]:
        """`bos_token_id`, `eos_token_id` and `pad_token_id`, as a model's config names them."""
        pad = self.inner.token_to_id(PAD)
        return {"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.eos if pad is None else pad}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens; text that looks like one is encoded as text.

        Raises DataError for a word that a tokenizer of words does not know.
        """
        self._know(text)
        ids: list[int] = self.inner.encode(text, add_special_tokens=False).ids
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each of many texts; faster than calling `encode` for each."""
        for text in texts:
            self._know(text)
        return [e.ids for e in self.inner.encode_batch(list(texts), add_special_tokens=False)]

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
        """Token ids of a prompt as the model sees it: `bos`, the text, and the separator before the answer."""
        end = [] if self.separator is None else [self.separator]
        return [self.bos, *self.encode(text), *end]

    def answer(self, text: str) -> list[int]:
        """Token ids of a response as the model should give it, including the ending token."""
        return [*self.encode(text), self.eos]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        text: str = self.inner.decode(list(ids), skip_special_tokens=True)
        return text

    def save(self, folder: Path) -> None:
        """Write tokenizer.json to an existing folder."""
        self.inner.save(str(folder / "tokenizer.json"), pretty=False)

    def export(self, folder: Path) -> None:
        """Write the tokenizer in the format that transformers' AutoTokenizer reads."""
        from transformers import PreTrainedTokenizerFast

        words = {name: self.inner.id_to_token(i) for name, i in (("bos_token", self.bos), ("eos_token", self.eos))}
        PreTrainedTokenizerFast(
            tokenizer_object=self.inner, pad_token=PAD if self.inner.token_to_id(PAD) else words["eos_token"], **words
        ).save_pretrained(folder)

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
    def load(cls, folder: Path) -> Tokenizer:
        """Load the tokenizer of a folder. Raises ExperimentError if there is no folder, DataError if it cannot be
        read."""
        from tokenizers import Tokenizer as Inner

        path = cls.file(folder)
        if wrong := pointer(path):
            raise DataError(*wrong)
        try:
            return cls(Inner.from_file(str(path)))
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
            return cls.load(Path((spec.path if spec else model_path) or ""))
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


def _texts(record: Record, words: bool) -> Iterator[str]:
    """The texts of a row that a tokenizer is trained on; a tokenizer of words is trained on all of them."""
    turns = record.get("turns") if words else None
    parts = [part for turn in turns if isinstance(turn, list) for part in turn] if isinstance(turns, list) else []
    values = [record.get(key) for key in (*FIELDS, *(ANSWERS if words else ()))]
    yield from (value for value in (*values, *parts) if isinstance(value, str) and value)
