"""Trains the tokenizer of the tests' tiny model.

    python scripts/goldens/tiny_tokenizer.py

Writes tests/fixtures/tiny-llama/{tokenizer.json,tokenizer_config.json}: a
byte-level BPE of 512 tokens, digits one by one, ChatML markers as special
tokens; SmolLM2's kind of tokenizer at a hundredth of its size, trained on the
texts of data/example.
"""

import json
import pathlib

import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

assert tokenizers.__version__.startswith("0.23."), tokenizers.__version__

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "tests/fixtures/tiny-llama"
TEXTS = ["pool/gsm8k.jsonl", "pool/tydiqa.jsonl", "gsm8k.jsonl"]
VOCAB_SIZE = 512
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def texts():
    for name in TEXTS:
        for line in (ROOT / "data/example" / name).read_text("utf-8").rstrip("\n").split("\n"):
            for message in json.loads(line)["messages"]:
                yield message["content"]


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE

    FOLDER.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(FOLDER / "tokenizer.json"))
    config = {
        "bos_token": "<|im_start|>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 512,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (FOLDER / "tokenizer_config.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
