"""Small SentencePiece models, and the ids that transformers gives with them.

    python scripts/goldens/sentencepiece_models.py

Writes tests/fixtures/sentencepiece/{bpe,unigram}.model, trained on the texts of
data/example, and tests/goldens/sentencepiece.json: ids of some texts under every
class of tokenizer that less-select converts. `scripts/crosscheck/token_ids.py`
compares many more. The models seed the fuzz target, too.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import sentencepiece
import transformers
from transformers import AutoTokenizer

assert transformers.__version__.startswith("5."), transformers.__version__

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / "tests/fixtures/sentencepiece"
sys.path.append(str(ROOT / "scripts/crosscheck"))
import token_ids  # noqa: E402

# A few rules instead of the 240 KB of all: what is compiled is the same.
RULES = "A0\t20\n3000\t20\nFB01\t66 69\n2460\t31\n65 301\tE9\n"
OPTIONS = {
    "bpe": {"byte_fallback": True, "normalization_rule_name": "identity", "control_symbols": ["<extra>"]},
    "unigram": {"model_type": "unigram", "user_defined_symbols": ["[INST]"]},
}
CONFIGS = {
    "bpe": [
        {"tokenizer_class": "LlamaTokenizer", "legacy": False},
        {"tokenizer_class": "LlamaTokenizerFast", "legacy": True},
        {"tokenizer_class": "GemmaTokenizer"},
        {"added_tokens_decoder": {"600": {"content": "<new one>", "special": True}, "2": {"content": "<end>", "special": True}}},
    ],
    "unigram": [{}],
}
TEXTS = [
    "", " ", "Hello  world", " Janet’s ducks lay 16 eggs.\n\n#### 18", "Zürich naïve e\u0301 ﬁ ①", "你好\u3000世界\u00a0!",
    "🦀👍🏽", "a\tb\r\nc\u0000d", "<s>[INST] Hi [/INST] Ho</s><s>", "x<extra>y<new one>z<end>", "▁▁a ▁", "one" * 40,
]


def train(folder):
    corpus, rules = folder / "corpus.txt", folder / "rules.tsv"
    corpus.write_text("\n".join(text.replace("\n", " ") for text in token_ids.corpus()), "utf-8")
    rules.write_text(RULES, "utf-8")
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name, options in OPTIONS.items():
        rules_option = {} if "normalization_rule_name" in options else {"normalization_rule_tsv": str(rules)}
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=str(folder / name), vocab_size=300 if name == "unigram" else 600,
            character_coverage=0.98, minloglevel=2, num_threads=1, **{"model_type": "bpe"} | options | rules_option,
        )
        shutil.copy(folder / f"{name}.model", FIXTURES / f"{name}.model")


def cases(folder):
    for name, configs in CONFIGS.items():
        for config in configs:
            shutil.copy(FIXTURES / f"{name}.model", folder / "tokenizer.model")
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            (folder / "config.json").write_text('{"model_type": "llama"}')
            tokenizer = AutoTokenizer.from_pretrained(folder)
            ids = [[text, tokenizer.encode(text, add_special_tokens=False)] for text in TEXTS]
            yield {"model": name, "config": config, "named": tokenizer.special_tokens_map, "ids": ids}


def main():
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        train(folder)
        versions = {"sentencepiece": sentencepiece.__version__, "transformers": transformers.__version__}
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases(folder))
        text = f'{{"versions": {json.dumps(versions)}, "cases": [\n{lines}\n]}}\n'
        (ROOT / "tests/goldens/sentencepiece.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
