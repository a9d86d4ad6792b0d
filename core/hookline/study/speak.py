"""Answers of a model outside of any run: to prompts and conversations, in batches or word by word."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from hookline import rng
from hookline.batch.stages import Sampling
from hookline.contract.feedback import Producer
from hookline.errors import DataError, ExperimentError
from hookline.runs.run import Run
from hookline.storage.paths import adapter_base, expanded, model_folder, tokenizer_folder
from hookline.tokens.encode import encode
from hookline.tokens.pretrained import json_of
from hookline.tokens.tokenizer import Tokenizer
from hookline.world import devices

if TYPE_CHECKING:
    from hookline.models.role import Role

__all__ = ["Speaker", "chat", "generate", "run_of", "speaker"]

Message = Mapping[str, Any]
BATCH = 32
"""Prompts that are answered at once."""
USUAL = 256
"""Tokens of an answer where nobody says how many."""


class Speaker:
    """A model and its tokenizer, ready to answer; made by `hookline.speaker`."""

    def __init__(self, role: Role, tokenizer: Tokenizer, named: Producer) -> None:
        self.role = role
        """The network, with what it knows of its tokens."""
        self.tokenizer = tokenizer
        """Its tokenizer, which has the chat template."""
        self._named = named

    @cached_property
    def by(self) -> Producer:
        """What its answers are kept with: the model's name, where it is from, and the beginning of its weights' hash."""
        return self._named.model_copy(update={"weights": self.role.hash()[:12]})

    def answers(
        self,
        records: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        max_new_tokens: int | None,
        seed: int,
        note: Callable[[str], None] | None = None,
    ) -> list[str]:
        """One answer for each record, which has a `prompt`, as text or messages, or `messages`.

        max_new_tokens: None for 256, or for what the model's context leaves after a record, which `note` is told.
        """
        from hookline.inference.decode import decode

        sampling.check_length(USUAL if max_new_tokens is None else max_new_tokens)
        free, context = max_new_tokens is None, self.role.context
        least = 1 if max_new_tokens is None else max_new_tokens
        prompts = [list(self._fitting(record, f"row {i + 1}", least)) for i, record in enumerate(records)]
        most_B = [min(USUAL, context - len(prompt)) if free else least for prompt in prompts]
        if note and free and min(most_B, default=USUAL) < USUAL:
            low, high = min(most_B), max(most_B)
            leaves = f"{low}" if low == high else f"{low} to {high}"
            note(
                f"the model's context of {context} tokens leaves {leaves} for an answer, so that fewer than {USUAL} are drawn"
            )
        found, ends = [""] * len(prompts), sampling.ending(self.tokenizer.ends, self.role.vocabulary)
        for rows in _together(most_B):
            drawn = decode(
                {"policy": self.role},
                [prompts[i] for i in rows],
                torch.tensor(rows),
                torch.zeros(len(rows), dtype=torch.bool),
                sampling=sampling,
                max_new_tokens=most_B[rows[0]],
                ends=ends,
                seed=rng.key(seed, "speak"),
                text=self.tokenizer.decode,
            )
            for i, one in zip(rows, drawn):
                found[i] = self.tokenizer.decode(one.token_ids.tolist())
        return found

    def stream(
        self, record: Mapping[str, Any], sampling: Sampling, max_new_tokens: int, seed: int
    ) -> Generator[str, None, str]:
        """One answer, piece by piece; returns why it ended, `stop` or `length`."""
        prompt = self._fitting(record, "the conversation", max_new_tokens)
        return (yield from self._drawn(prompt, sampling, max_new_tokens, seed))

    @torch.no_grad()
    def _drawn(
        self, prompt: Sequence[int], sampling: Sampling, max_new_tokens: int, seed: int
    ) -> Generator[str, None, str]:
        from hookline.inference.decode import draw_token
        from hookline.inference.past import Past, Stops

        ends = sampling.ending(self.tokenizer.ends, self.role.vocabulary)
        past = Past([prompt], sampling, len(prompt) + max_new_tokens, self.role.device)
        stops = Stops(sampling, self.tokenizer.decode) if sampling.stop_strings else None
        state = self.role.prefill([list(prompt)], self.tokenizer.eos)
        ids: list[int] = []
        shown, ended = "", "length"
        for t in range(max_new_tokens):
            u = rng.uniform(rng.key(seed, "speak"), torch.tensor([len(prompt)]), t)
            logits = self.role.only_tokens(state.logits_BV)
            if sampling.reshapes:
                logits = past.reshaped(logits, torch.tensor([t], device=logits.device), ends)
            token = int(draw_token(logits, sampling, u.to(logits.device)).ids)
            if token not in self.tokenizer.ends:
                ids.append(token)
            text = self.tokenizer.decode(ids)
            if not text.endswith("\ufffd"):  # in the middle of a character
                yield text[len(shown) :]
                shown = text
            if token in ends or (stops and stops.found(ids, t)):
                ended = "stop"
                break
            past.add(torch.tensor([token], device=logits.device))
            if t + 1 < max_new_tokens:
                self.role.step(state, torch.tensor([token], device=logits.device))
        if rest := self.tokenizer.decode(ids)[len(shown) :]:  # it ended within a character
            yield rest
        return ended

    def reply(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int | None = None,
        seed: int = 0,
        **sampling: Any,
    ) -> Generator[str, None, str]:
        """The next message of a conversation, piece by piece; returns why it ended, `stop` or `length`.

        The options are those of `hookline.chat`. Raises DataError for a conversation that is `refused`, and for a model
        without a chat template.
        """
        self.check_converses()
        prompt, refused = self._placed(messages, max_new_tokens)
        if refused:
            raise DataError(
                f"the model's context of {self.role.context} tokens has no room for an answer to "
                + ("the conversation" if refused == "full" else "a message of this length"),
                "begin anew with the last message" if refused == "full" else "shorten it",
            )
        most = USUAL if max_new_tokens is None else max_new_tokens
        return self._drawn(prompt, _sampling(**sampling), min(most, self.role.context - len(prompt)), seed)

    def refused(self, messages: Sequence[Message], max_new_tokens: int | None = None) -> Literal["", "full", "long"]:
        """Why a conversation gets no reply: `full`, the model's context has no room for one, but would have with the last
        message alone (and the system prompt); `long`, not even then. Empty for one that gets a reply.

        Room for a reply is room for `max_new_tokens` (256 by default), or for a quarter of the context if that is less.
        """
        return self._placed(messages, max_new_tokens)[1]

    def _placed(
        self, messages: Sequence[Message], max_new_tokens: int | None
    ) -> tuple[Sequence[int], Literal["", "full", "long"]]:
        """A conversation's tokens, and why they get no reply."""
        most, context = USUAL if max_new_tokens is None else max_new_tokens, self.role.context
        least, prompt = max(1, min(most, context // 4)), self._ids({"prompt": list(messages)})
        if context - len(prompt) >= least:
            return prompt, ""
        begins = itertools.takewhile(lambda message: message["role"] == "system", messages)
        alone = [*begins, messages[-1]]
        fits = len(alone) < len(messages) and self.room({"prompt": alone}) >= least
        return prompt, "full" if fits else "long"

    def _ids(self, record: Mapping[str, Any]) -> Sequence[int]:
        return encode(self.tokenizer, record, answer=None, where="the conversation").prompt_ids

    def check_converses(self) -> None:
        """Raise DataError for a model without a chat template."""
        if self.tokenizer.chat is None:
            raise DataError(
                "the model's tokenizer has no chat template, so it cannot hold a conversation",
                "use hookline generate for texts, or a folder with a template",
            )

    def room(self, record: Mapping[str, Any]) -> int:
        """How many tokens the model's context has left for an answer; negative if the record alone does not fit."""
        return self.role.context - len(self._ids(record))

    def _fitting(self, record: Mapping[str, Any], where: str, new_tokens: int) -> Sequence[int]:
        return encode(
            self.tokenizer, record, answer=None, where=where, longest=self.role.context, new_tokens=new_tokens
        ).prompt_ids


def _together(most_B: Sequence[int]) -> Iterator[list[int]]:
    """The rows that are drawn in one batch: up to BATCH with the same number of tokens."""
    for _, same in itertools.groupby(sorted(range(len(most_B)), key=most_B.__getitem__), key=most_B.__getitem__):
        rows = list(same)
        yield from (rows[i : i + BATCH] for i in range(0, len(rows), BATCH))


def speaker(model: Run | str | Path, device: str = "auto") -> Speaker:
    """Open a run's last model, that of `RUN/phases/NAME`, or a transformers folder, to ask it.

    Raises ExperimentError for a folder that holds no model, and the errors of `export` for a run.
    """
    from hookline.models.adapters import merged
    from hookline.models.causal import Causal
    from hookline.models.role import Role
    from hookline.study.finished import ended

    path, where = expanded(Path(model.directory if isinstance(model, Run) else model)), devices.resolve(device)
    run, phase = run_of(path)
    if run:
        found = ended(run, phase, device=where)
        judges, role, tokenizer = found.scores, found.role, found.tokenizer
        name, phase = found.run.directory.name, found.phase.spec.name
        named = Producer(name=f"{name}/{phase}", run=found.run.id, phase=phase, step=found.step)
    else:
        named = Producer(name=path.resolve().name)
        path = Path(model_folder(str(path)))
        base = adapter_base(str(path))
        judges = "ForSequenceClassification" in str(json_of(path / "config.json").get("architectures"))
        family = Causal(Causal.Config())
        family.instance = "causal"
        net = merged(family.load(base), str(path)) if base else family.load(path)
        role, tokenizer = Role("policy", net.to(where), family), Tokenizer.load(Path(tokenizer_folder(str(path))))
    if judges:
        raise ExperimentError(f"{path} is a reward model, which gives no answers", "name a run or phase that draws")
    role.knows(tokenizer.vocabulary, tokenizer.gaps)
    return Speaker(role, tokenizer, named)


def run_of(path: Path) -> tuple[Path | None, str | None]:
    """The run that a path names, and the phase; (None, None) for a folder of another kind."""
    if Run.is_one(path):
        return path, None
    if path.parent.name == "phases" and Run.is_one(path.parent.parent):
        return path.parent.parent, path.name
    return None, None


def generate(
    model: Run | str | Path,
    prompts: Sequence[str | Sequence[Message] | Mapping[str, Any]],
    *,
    max_new_tokens: int | None = None,
    seed: int = 0,
    device: str = "auto",
    note: Callable[[str], None] | None = None,
    **sampling: Any,
) -> list[str]:
    """Answer prompts with a run's model or a transformers folder: what `hookline generate` prints.

    model: a run, its directory, `RUN/phases/NAME`, or a folder. prompts: texts, lists of messages, or records with `prompt`
    or `messages`. max_new_tokens: by default 256, or what the model's context leaves after a prompt if that is less, which
    `note` is told (by default on standard error); a number that does not fit raises DataError. sampling: the fields of
    `Sampling`, e.g. `temperature=0.7, top_p=0.9`; temperature 0 takes the likeliest token. The same seed gives the same answers.

    Returns one text per prompt, without special tokens.
    """
    records = [prompt if isinstance(prompt, Mapping) else {"prompt": prompt} for prompt in prompts]
    tell = note or (lambda text: print(f"note: {text}", file=sys.stderr))
    drawn_from = _sampling(**sampling)
    return speaker(model, device).answers(records, drawn_from, max_new_tokens, seed, tell)


def _sampling(temperature: float = 1.0, **others: Any) -> Sampling:
    """The distribution that fields of `Sampling` describe; temperature 0 is the likeliest token alone."""
    if temperature < 0:
        raise ExperimentError(f"temperature is {temperature:g}", "give 0 for the likeliest token, or a number above 0")
    if temperature == 0:
        others["top_k"] = 1
    return Sampling(temperature=temperature or 1.0, **others)


def chat(
    model: Run | str | Path,
    ask: Callable[[], str | None],
    say: Callable[[str], None],
    *,
    system: str = "",
    max_new_tokens: int | None = None,
    seed: int = 0,
    device: str = "auto",
    note: Callable[[str], None] | None = None,
    **sampling: Any,
) -> list[dict[str, str]]:
    """Hold a conversation with a run's model or a transformers folder: what `hookline chat` does on the terminal.

    model and sampling: as in `hookline.generate`. ask: gives what the user says, or None at the end. say: receives the
    pieces of each answer as they are drawn. system: a system prompt. note: receives sentences about the conversation; by
    default `say` does, in brackets.

    An answer has at most `max_new_tokens` (by default 256), and at most what is left of the model's context. Where less is
    left than that and than a quarter of the context, the conversation begins anew: earlier messages are forgotten, except
    the system prompt. A message that is too long by itself is left out.

    Returns the conversation since it last began, as messages with `role` and `content`. Raises DataError for a model
    without a chat template, and for messages that the template refuses.
    """
    _sampling(**sampling)  # what cannot be is refused before a model is loaded
    found = speaker(model, device)
    found.check_converses()
    tell = note or (lambda text: say(f"[{text}]\n"))
    begins: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    context, messages = found.role.context, list(begins)
    while (text := ask()) is not None:
        asked = {"role": "user", "content": text}
        refused = found.refused([*messages, asked], max_new_tokens)
        if refused == "full":
            tell(
                f"the conversation has filled the model's context of {context} tokens and begins anew with this message"
            )
            messages = list(begins)
        elif refused:
            tell(f"this message is too long for the model's context of {context} tokens and is left out")
            continue
        messages.append(asked)
        answer = ""
        for piece in found.reply(messages, max_new_tokens=max_new_tokens, seed=seed, **sampling):
            say(piece)
            answer += piece
        say("\n")
        messages.append({"role": "assistant", "content": answer})
    return messages
