#!/usr/bin/env python3
"""The ids that `transformers` gives to 5,000 strings, by tokenizer.

    token_ids.py OUT_FOLDER [MODEL_FOLDER...]

The tokenizers are those of MODEL_FOLDERs, SentencePiece models that come with the Python package
`mistral-common`, and SentencePiece models trained here: unigram and BPE, with and without bytes for
what is in no piece, normalization and a blank before the text, under every class of tokenizer that
less-select converts; and byte pairs trained here, in a GGUF file, too (byte_pairs.py). OUT_FOLDER gets a folder for each with the files that tell its tokenizer, and
`ids.json` beside them; a test of less-select reads it:

    LESS_SELECT_TOKENIZERS=OUT_FOLDER cargo test --lib crosscheck_token_ids -- --ignored
"""

import importlib.util
import json
import random
import shutil
import sys
from pathlib import Path

import byte_pairs
import sentencepiece
from transformers import AutoTokenizer

REPO = Path(__file__).parents[2]
N_STRINGS = 5000
FILES = ["tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
SPECIAL = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<bos>", "<pad>", "[INST]", "<extra>", "<new one>", "▁"]
ALPHABETS = [
    "etaoin shrdlu",
    "Zürich naïve œuvre ŉ ﬁ ½ №",
    "привет мир Ёж",
    "你好，世界。繁體",
    "こんにちは カタカナ ﾊﾝｶｸ が",
    "안녕하세요 ㅋㅋ",
    "مرحبا بالعالم ١٢٣",
    "हिन्दी नमस्ते ไทย",
    "🦀👍🏽👩‍👩‍👧‍👦🇩🇪✈️",
    "\t\n\r\v\f \u00a0\u2003\u3000\u200b\ufeff",
    "\u0000\u0001\u001f\u007f\u0085\u202e",
    "e\u0301 a\u0308 \u0338 \ufffd \ufffe \U0010ffff \ue000",
    "0123456789.,+-*/=<>()[]{}\"'`~!?;:@#$%^&|\\_",
]


def corpus():
    for path in sorted((REPO / "data/example/pool").glob("*.jsonl")):
        for line in path.read_text("utf-8").rstrip("\n").split("\n"):
            for message in json.loads(line).get("messages", []):
                yield message["content"]


def strings():
    """Texts of the example data, mixed scripts, control characters, special tokens, long runs."""
    chance = random.Random(0)
    texts = list(corpus())
    found = ["", " ", "  ", "\n", " a", "a ", "▁", "▁▁a"]
    found += [char * length for char in "a \n0é你🦀\u0000▁" for length in (2, 3, 7, 64, 1000)]
    while len(found) < N_STRINGS:
        parts = []
        for _ in range(chance.randint(1, 6)):
            kind = chance.random()
            if kind < 0.35:
                text = chance.choice(texts)
                start = chance.randrange(len(text) or 1)
                parts.append(text[start : start + chance.randint(1, 80)])
            elif kind < 0.5:
                parts.append(chance.choice(SPECIAL))
            elif kind < 0.9:
                alphabet = chance.choice(ALPHABETS)
                parts.append("".join(chance.choice(alphabet) for _ in range(chance.randint(1, 12))))
            else:
                parts.append(chr(chance.choice([chance.randrange(0xD800), chance.randrange(0xE000, 0x110000)])))
        found.append(chance.choice(["", "", " "]).join(parts))
    return found


def trained(folder):
    """SentencePiece models, by name, with the classes that they are read under."""
    text = folder / "corpus.txt"
    text.write_text("\n".join(each.replace("\n", " ") for each in corpus()), "utf-8")
    bpe, unigram = {"model_type": "bpe"}, {"model_type": "unigram"}
    plain = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    symbols = {"control_symbols": ["<extra>"], "user_defined_symbols": ["<|im_start|>", "[INST]"]}
    variants = {
        "bpe": bpe | plain | {"byte_fallback": True, "split_digits": True},
        "bpe-normalized": bpe | {"byte_fallback": True},
        "bpe-without-bytes": bpe | plain | {"add_dummy_prefix": False},
        "bpe-symbols": bpe | plain | symbols | {"byte_fallback": True, "pad_id": 3},
        "unigram": unigram | plain | {"byte_fallback": True},
        "unigram-normalized": unigram | {"byte_fallback": True, "add_dummy_prefix": False},
        "unigram-without-bytes": unigram | symbols,
    }
    for name, options in variants.items():
        prefix = folder / name
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(prefix), vocab_size=1000, minloglevel=2, num_threads=1, **options
        )
        configs = [{}, {"tokenizer_class": "PreTrainedTokenizerFast"}]
        if "bpe" in name:
            configs += [
                {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True},
                {"tokenizer_class": "LlamaTokenizerFast", "legacy": True, "pad_token": "<pad>"},
                {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False},
                {"tokenizer_class": "GemmaTokenizer"},
            ]
        for number, config in enumerate(configs):
            yield f"{name}-{number}", Path(f"{prefix}.model"), config, {}
    yield "added-listed", Path(f"{folder}/bpe.model"), {
        "tokenizer_class": "LlamaTokenizer",
        "added_tokens_decoder": {
            "1": {"content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True},
            "1000": {"content": "<new one>", "lstrip": True, "normalized": False, "rstrip": True, "single_word": False, "special": True},
            "1001": {"content": "Zürich", "lstrip": False, "normalized": True, "rstrip": False, "single_word": True, "special": False},
        },
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>"],
    }, {}
    yield "added-older", Path(f"{folder}/bpe.model"), {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"}, {
        "special_tokens_map.json": {"eos_token": {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": True, "single_word": False}},
        "added_tokens.json": {"<|im_end|>": 1000, "[INST]": 1001, "naïve": 1002},
    }


def shipped():
    found = importlib.util.find_spec("mistral_common")
    for path in sorted((Path(found.origin).parent / "data").glob("*.model*")) if found else []:
        for legacy in (False, True):
            config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy}
            yield f"{path.name.replace('.', '-')}-{legacy}", path, config, {}


def write(folder, texts):
    # Not by the class that a model's family registers, but by the tokenizer's own.
    (folder / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    named = {name: token for name, token in tokenizer.special_tokens_map.items()}
    (folder / "ids.json").write_text(json.dumps({"ids": ids, "named": named}), "utf-8")


def main(out, models):
    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    (out / "trained").mkdir(parents=True)
    texts = strings()
    (out / "strings.json").write_text(json.dumps(texts), "utf-8")
    n_tokenizers = 0
    for name, model, config, files in [*trained(out / "trained"), *shipped()]:
        folder = out / name
        folder.mkdir()
        shutil.copy(model, folder / "tokenizer.model")
        for file, content in {"tokenizer_config.json": config, **files}.items():
            (folder / file).write_text(json.dumps(content), "utf-8")
        write(folder, texts)
        n_tokenizers += 1
    for name, files in byte_pairs.trained(list(corpus())):
        folder = out / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_text(json.dumps(content), "utf-8")
        byte_pairs.write_gguf(folder / "model.gguf", name, files["tokenizer.json"])
        write(folder, texts)
        n_tokenizers += 1
    for model in map(Path, models):
        folder = out / model.name
        folder.mkdir()
        for file in FILES:
            if (model / file).exists():
                shutil.copy(model / file, folder / file)
        write(folder, texts)
        n_tokenizers += 1
    print(f"  {n_tokenizers} tokenizers, {len(texts)} strings each")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
