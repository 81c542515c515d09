"""Goldens of ingest: what transformers makes of conversations.

    python scripts/goldens/tokens.py [SMOLLM2_FOLDER]

Writes tests/goldens/tokens.json (token ids and assistant masks with the tiny
model's tokenizer), tokens_templates.json (chat templates of several families:
rendered text and what the assistant says in it, as byte ranges) and, given the
folder of SmolLM2-135M-Instruct, tokens_smollm2.json.

Masks and ranges come from `{% generation %}` blocks written into the templates
by hand; the tests compare them with what less-select finds without such blocks.
"""

import json
import pathlib
import sys

import jinja2
import tokenizers
import transformers
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from chat_templates import TEMPLATES

VERSIONS = {
    "jinja2": jinja2.__version__,
    "tokenizers": tokenizers.__version__,
    "transformers": transformers.__version__,
}
assert transformers.__version__.startswith("5."), VERSIONS

ROOT = pathlib.Path(__file__).parents[2]
GOLDENS = ROOT / "tests/goldens"
TINY = ROOT / "tests/fixtures/tiny-llama"
# The day that less-select lives in (src/pool/chat/python.rs).
TODAY = "26 Jul 2024"


def talk(*contents, system=None):
    """A conversation of alternating user and assistant turns."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    for turn, content in enumerate(contents):
        messages.append({"role": ("user", "assistant")[turn % 2], "content": content})
    return messages


CONVERSATIONS = [
    talk("What is the capital of France?", "Paris"),
    talk("2+2?", "4", "3+3?", "6", "And the sum of both?", "10"),
    talk("Hi", "Hello!", system="You answer in one word."),
    talk("Hi", "Hello!", "Bye", "Goodbye.", system="Be polite.\nBe brief."),
    talk("Hi", "Hello!", system=""),
    talk("Say nothing.", ""),
    talk("", "There was no question."),
    talk("", ""),
    talk("Say nothing, twice.", "", "Again.", ""),
    talk("a", "b"),
    talk("Leading blanks", "  two spaces first"),
    talk("Trailing blanks", "two spaces last  "),
    talk("Line ends", "\nfirst and last\n"),
    talk("Many line ends\n\n", "\n\n\nmiddle\n\n\n"),
    talk("Tabs\tand\r\nreturns", "\tindented\r\n"),
    talk("Only blanks", " \n "),
    talk("Natalia sold 48/2 = 24 clips. How many in 1,234.5 days?", "48 + 24 = 72\n#### 72"),
    talk("Count: 1234567890", "0987654321"),
    talk("Translate 'naïve café' to German.", "naives Café — „naiv“"),
    talk("Ni hao?", "你好，世界！"),
    talk("السؤال: ما هي عاصمة مصر؟", "القاهرة"),
    talk("한국의 수도는?", "서울"),
    talk("Emoji?", "🦀👍🏽👩‍👩‍👧‍👦"),
    talk("🦀", "Ends with an emoji 🦀"),
    talk("Combining: e\u0301", "e\u0301 is not é"),
    talk("Write Python.", "```python\ndef f(x):\n    return {'a': [x ** 2]}  # square\n```"),
    talk("Quote the JSON.", '{"a": "<b> & \\"c\\"", "d": [1, null]}'),
    talk("Template?", "{{ messages }} {% if x %} {# no #} {%- endif %}"),
    talk("Special?", "I never say <|im_end|> or <|im_start|>user\nHi<|im_end|>\n."),
    talk("What did the user not say?", "Private: \ue000\ue001"),
    talk("One", "Two", "Three"),
    [{"role": "assistant", "content": "I begin."}],
    [{"role": "assistant", "content": "I begin."}, {"role": "assistant", "content": "I go on."}],
    talk("Weather?", "call(weather)") + [{"role": "tool", "content": "sun"}] + talk("", "Sun.")[1:],
    talk("A long one. " * 20, "A long answer, too. " * 20),
]


def masked(template):
    """A ChatML template with a generation block around what the assistant says."""
    written = ["message['content'] + '<|im_end|>' + '\\n'", "message['content'] + '<|im_end|>' + '\n'"]
    (turn,) = (turn for turn in written if template.count(turn) == 1)
    head, tail = template.split(turn)
    return (
        head
        + "'' }}{% if message['role'] == 'assistant' %}{% generation %}"
        + "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
        + "{% else %}{{ "
        + turn
        + " }}{% endif %}{{ ''"
        + tail
    )


def tokens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = masked(tokenizer.chat_template)
    cases = []
    for messages in CONVERSATIONS:
        encoded = tokenizer.apply_chat_template(
            messages, chat_template=template, return_assistant_tokens_mask=True, return_dict=True
        )
        plain = tokenizer.apply_chat_template(messages, return_dict=True)
        assert encoded["input_ids"] == plain["input_ids"]
        mask = "".join(map(str, encoded["assistant_masks"]))
        cases.append({"messages": messages, "token_ids": plain["input_ids"], "supervised": mask})
    return cases


GEN, END = "{% generation %}", "{% endgeneration %}"

TEMPLATE_CONVERSATIONS = [
    talk("What is the capital of France?", "Paris"),
    talk("2+2?", "4", "3+3?", "6", system="Count 🦀."),
    talk("Blanks", "  both sides \n", "\nMore", "\n\nbefore", "Even more ", "behind\n"),
    talk("Blanks before only", "\n assistant\nHi"),
    talk("Blanks behind only", "Hi \n\n"),
    talk("Say nothing.", "", "Only blanks, now.", " \n "),
    talk("Think.", "<think>\nHm.\n</think>\n\nYes 🦀."),
    talk("Think.", "<think>\nHm.\n</think>\n\nYes.", "Again.", "<think>\nWell.\n</think>\n\nNo."),
    talk("你好", "世界 “引用” & <b>", "One more"),
    talk("Weather?", "call()") + [{"role": "tool", "content": "sun"}, {"role": "assistant", "content": "Sun."}],
]


def rendered(source, named, messages):
    """Text and byte ranges of generation blocks; or the template's complaint."""
    try:
        texts, spans = chat_template_utils.render_jinja_template(
            conversations=[messages],
            chat_template=source,
            return_assistant_tokens_mask=True,
            **named,
        )
    except jinja2.exceptions.TemplateError as err:
        return {"error": str(err)}
    text = texts[0]
    at = lambda char: len(text[:char].encode())
    return {"text": text, "supervised": [[at(start), at(end)] for start, end in spans[0]]}


def freeze_the_day(template):
    """Compiles a template whose `strftime_now` tells TODAY."""
    compiled = COMPILE(template)
    compiled.globals["strftime_now"] = lambda format: TODAY
    return compiled


COMPILE = chat_template_utils._compile_jinja_template
chat_template_utils._compile_jinja_template = freeze_the_day


def without_generation(source):
    for tag in (GEN, END):
        source = source.replace(tag, "")
    tags = ("{%- generation %}", "{%- endgeneration %}")
    return "\n".join(line for line in source.split("\n") if line.strip() not in tags)


def templates():
    cases = []
    for name, template in TEMPLATES.items():
        marked = template["source"].replace("GEN", GEN).replace("END", END)
        plain = without_generation(marked)
        conversations = []
        for messages in TEMPLATE_CONVERSATIONS:
            golden = rendered(marked, template["named"], messages)
            assert rendered(plain, template["named"], messages).get("text") == golden.get("text")
            conversations.append({"messages": messages, **golden})
        cases.append({
            "name": name,
            "plain": plain,
            "marked": marked,
            "named": template["named"],
            "special_tokens": template["special_tokens"],
            "conversations": conversations,
        })
    return cases


def write(name, cases):
    text = json.dumps({"versions": VERSIONS, "cases": cases}, ensure_ascii=False, indent=None)
    # A case a line.
    text = text.replace('{"messages"', '\n{"messages"').replace('{"name"', '\n\n{"name"')
    (GOLDENS / name).write_text(text + "\n", "utf-8")


def main(folders):
    GOLDENS.mkdir(exist_ok=True)
    write("tokens.json", tokens(TINY))
    write("tokens_templates.json", templates())
    for folder in folders:
        write("tokens_smollm2.json", tokens(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
