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

# Written after the published templates of these families; GEN and END mark what
# the assistant says and are taken out for the plain template.
TEMPLATES = {
    "zephyr": {
        "special_tokens": ["</s>", "<s>", "<unk>"],
        "named": {"bos_token": "<s>", "eos_token": "</s>"},
        "source": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n' }}GEN{{ message['content'] + eos_token }}END{{ '' }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    },
    "llama-2": {
        "special_tokens": ["</s>", "<s>", "<unk>"],
        "named": {"bos_token": "<s>", "eos_token": "</s>"},
        "source": (
            "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
            "{% set system_message = messages[0]['content'] %}{% else %}"
            "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
            "{% for message in loop_messages %}"
            "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
            "{% endif %}"
            "{% if loop.index0 == 0 and system_message != false %}"
            "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
            "{% else %}{% set content = message['content'] %}{% endif %}"
            "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
            "{% elif message['role'] == 'assistant' %}{{ ' ' }}GEN{{ content.strip() + ' ' + eos_token }}END"
            "{% endif %}{% endfor %}"
        ),
    },
    "llama-3": {
        "special_tokens": ["<|begin_of_text|>", "<|end_header_id|>", "<|eot_id|>", "<|start_header_id|>"],
        "named": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        "source": (
            "{% set loop_messages = messages %}{% for message in loop_messages %}"
            "{% set header = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' %}"
            "{% if loop.index0 == 0 %}{% set header = bos_token + header %}{% endif %}"
            "{{ header }}{% if message['role'] == 'assistant' %}"
            "GEN{{ message['content'] | trim + '<|eot_id|>' }}END"
            "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
        ),
    },
    "llama-3.2": {
        "special_tokens": ["<|begin_of_text|>", "<|end_header_id|>", "<|eot_id|>", "<|start_header_id|>"],
        "named": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        "source": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {%- if message['role'] == 'assistant' %}
            {%- generation %}
                {{- message['content'] | trim + '<|eot_id|>' }}
            {%- endgeneration %}
        {%- else %}
            {{- message['content'] | trim + '<|eot_id|>' }}
        {%- endif %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    },
    "qwen-2.5": {
        "special_tokens": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
        "named": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "source": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" and not message.tool_calls %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- generation %}
            {{- message.content + '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    },
    # Thoughts of earlier turns are dropped, those of the last are kept.
    "qwen-3": {
        "special_tokens": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
        "named": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "source": """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system") %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- generation %}
        {%- if loop.index0 > ns.last_query_index and reasoning_content %}
            {{- '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    },
    "gemma": {
        "special_tokens": ["<bos>", "<end_of_turn>", "<eos>", "<start_of_turn>"],
        "named": {"bos_token": "<bos>", "eos_token": "<eos>"},
        "source": (
            "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}"
            "{% for message in messages %}"
            "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
            "{% endif %}"
            "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
            "{% else %}{% set role = message['role'] %}{% endif %}"
            "{{ '<start_of_turn>' + role + '\n' }}"
            "{% if role == 'model' %}GEN{{ message['content'] | trim + '<end_of_turn>' }}END{{ '\n' }}"
            "{% else %}{{ message['content'] | trim + '<end_of_turn>\n' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
        ),
    },
    # No special token after a turn: what closes it is text.
    "vicuna-like": {
        "special_tokens": ["<s>"],
        "named": {"bos_token": "<s>"},
        "source": (
            "{{ bos_token }}{% for message in messages %}"
            "{% if message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}"
            "GEN{{ message['content'] + ' ###' }}END{{ '\n\n' }}"
            "{% else %}{{ message['role'] | upper + ': ' + message['content'] + '\n' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
        ),
    },
}

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
    lines = source.split("\n")
    return "\n".join(line for line in lines if line.strip() not in ("{%- generation %}", "{%- endgeneration %}"))


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
