"""Tokenizers that merge pairs of bytes, trained here, each as `tokenizer.json` and as a GGUF file.

They cut texts as GPT-2, SmolLM, Llama 3 and Qwen2 do: by the expressions that `transformers` has.
The GGUF file is what llama.cpp's converter writes of such a folder, by the gguf package.
"""

import inspect
import json
from collections import Counter

import gguf
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

LLAMA3 = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
END, TURN, TOOL = "<|endoftext|>", "<|im_start|>", "<extra>"
# Frequent words of the vocabulary that no merges lead to; those of Llama 3 are tokens all the same.
N_WHOLE = 300
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def by(expression):
    split = pre_tokenizers.Split(Regex(expression), behavior="isolated", invert=False)
    return [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def kinds():
    """What llama.cpp calls it, the steps before merging, whether words are tokens, the class."""
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    yield "gpt-2", [gpt2], False, "PreTrainedTokenizerFast"
    yield "smollm", [pre_tokenizers.Digits(individual_digits=True), gpt2], False, "PreTrainedTokenizerFast"
    yield "llama-bpe", by(LLAMA3), True, "PreTrainedTokenizerFast"
    yield "qwen2", by(PRETOKENIZE_REGEX), False, "Qwen2Tokenizer"


def trained(texts):
    """Name, the files of a folder, and what writes its GGUF file."""
    for pre, steps, takes_words, tokenizer_class in kinds():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC() if pre == "qwen2" else None
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        content = json.loads(tokenizer.to_str())
        model = content["model"]
        words = Counter(word for text in texts for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
        others = [word for word, _ in words.most_common() if word not in model["vocab"]]
        for word in others[:N_WHOLE]:
            model["vocab"][word] = len(model["vocab"])
        model["ignore_merges"] = takes_words
        n_tokens = len(model["vocab"])
        content["added_tokens"] = [
            {"id": n_tokens + at, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": token != TOOL}
            for at, token in enumerate([END, TURN, TOOL])
        ]
        config = {"tokenizer_class": tokenizer_class, "bos_token": TURN, "eos_token": END, "unk_token": END, "pad_token": END}
        yield pre, {"tokenizer.json": content, "tokenizer_config.json": config}


def write_gguf(path, pre, content):
    vocab = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    added = content["added_tokens"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocab + [token["content"] for token in added])
    writer.add_token_types([NORMAL] * len(vocab) + [CONTROL if token["special"] else USER_DEFINED for token in added])
    writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    end, turn, _ = (token["id"] for token in added)
    writer.add_bos_token_id(turn)
    writer.add_eos_token_id(end)
    writer.add_unk_token_id(end)
    writer.add_pad_token_id(end)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
