"""Model folders in six shapes that people bring, with seeded weights: each has its family's special tokens, chat template,
ends and padding of the vocabulary. `python tests/shapes.py DIR` writes them and prints a table."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WORDS = "open close read write file list value name return error string number path time data key".split()
TEXTS = [f"To {a} the {b}, {c} a {d}." for a, b, c, d in zip(WORDS * 3, WORDS[3:] * 4, WORDS[7:] * 5, WORDS[1:] * 4)]


@dataclass(frozen=True)
class Shape:
    """What a family's folders have in common."""

    model: str
    """The class of its config in transformers."""
    special: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str | None
    ends: tuple[str, ...]
    """The tokens that generation_config names."""
    template: str
    begins: bool = False
    """Whether the tokenizer puts `bos` before a text."""
    spare: int = 0
    """Rows of the embedding that no token has."""
    holes: int = 0
    """Ids between tokens that no token has."""
    tied: bool = False
    nfc: bool = False
    """Whether the tokenizer composes accents first."""
    config: tuple[tuple[str, Any], ...] = ()


CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou are a helper.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday is {{ strftime_now('%d %b %Y') }}.<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% set ns = namespace(first='') %}{% if messages[0].role == 'system' %}"
    "{% set ns.first = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}{% endif %}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ ns.first if loop.first }}{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
GPT2 = (
    "{% for m in messages %}{{ m.role }}:\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}\n{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)
SHAPES = {
    "qwen2": Shape(
        "Qwen2Config", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, "<|im_end|>", "<|endoftext|>",
        ("<|im_end|>", "<|endoftext|>"), CHATML, spare=13, nfc=True,
    ),
    "llama3": Shape(
        "LlamaConfig",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
        "<|begin_of_text|>", "<|eot_id|>", None, ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"), LLAMA, begins=True,
    ),
    "gemma3": Shape(
        "Gemma3TextConfig", ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>", "<pad>",
        ("<eos>", "<end_of_turn>"), GEMMA, begins=True, spare=3, tied=True, config=(("head_dim", 16),),
    ),
    "phi3": Shape(
        "Phi3Config", ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), None, "<|endoftext|>",
        "<|endoftext|>", ("<|endoftext|>", "<|assistant|>", "<|end|>"), PHI, spare=5,
    ),
    "gpt2": Shape("GPT2Config", ("<|endoftext|>",), None, "<|endoftext|>", None, ("<|endoftext|>",), GPT2, tied=True),
    "mistral": Shape(
        "MistralConfig", ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), "<s>", "</s>", None, ("</s>",), MISTRAL,
        begins=True, holes=4,
    ),
}  # fmt: skip


def build(name: str, folder: Path, seed: int | None = None, **changed: Any) -> Path:
    """Write the folder of a shape; seed: of its weights; changed: fields of the shape that are otherwise."""
    import transformers

    shape = replace(SHAPES[name], **changed)
    folder.mkdir(parents=True, exist_ok=True)
    inner = _tokenizer(shape)
    outer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=shape.bos, eos_token=shape.eos, pad_token=shape.pad, chat_template=shape.template
    )
    outer.save_pretrained(folder)
    if shape.holes:  # ids that the file skips, as where a token was removed
        file = folder / "tokenizer.json"
        stored = json.loads(file.read_text())
        last = max(token["id"] for token in stored["added_tokens"])
        beyond = 1 + max(last, max(stored["model"]["vocab"].values())) + shape.holes
        stored["added_tokens"].append({**stored["added_tokens"][0], "id": beyond, "content": "<extra>", "special": False})
        stored["model"]["vocab"]["<extra>"] = beyond
        file.write_text(json.dumps(stored))
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    size = 1 + max(loaded.get_vocab().values()) + shape.spare
    sizes = {"vocab_size": size, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    if name == "gpt2":
        sizes = {"vocab_size": size, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256}
    else:
        sizes |= {"num_key_value_heads": 1, "max_position_embeddings": 256}
    ends = [loaded.convert_tokens_to_ids(end) for end in shape.ends]
    config = getattr(transformers, shape.model)(
        **sizes, **dict(shape.config), tie_word_embeddings=shape.tied, bos_token_id=loaded.bos_token_id, eos_token_id=ends[0],
        pad_token_id=loaded.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(len(name) if seed is None else seed)
    net = transformers.AutoModelForCausalLM.from_config(config)
    net.generation_config = transformers.GenerationConfig(
        eos_token_id=ends if len(ends) > 1 else ends[0], bos_token_id=loaded.bos_token_id, pad_token_id=loaded.pad_token_id,
        temperature=0.7, do_sample=True,
    )  # fmt: skip
    net.save_pretrained(folder)
    return folder


def _tokenizer(shape: Shape) -> Tokenizer:
    inner = Tokenizer(models.BPE())
    if shape.nfc:
        inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=list(shape.special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    inner.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    if shape.begins:
        assert shape.bos
        inner.post_processor = processors.TemplateProcessing(
            single=f"{shape.bos} $A", special_tokens=[(shape.bos, inner.token_to_id(shape.bos))]
        )
    return inner


def main(root: Path) -> None:
    from transformers import AutoTokenizer

    print("| folder | begins with | ends | pad | rows of the embedding beyond the tokenizer |\n|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        loaded = AutoTokenizer.from_pretrained(build(name, root / name))
        before = loaded.convert_ids_to_tokens(loaded("a")["input_ids"])[0] if shape.begins else "–"
        print(f"| {name} | {before} | {', '.join(shape.ends)} | {shape.pad or '–'} | {shape.spare} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
