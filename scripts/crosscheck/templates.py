#!/usr/bin/env python3
"""What `transformers` makes of chat templates as model families ship them.

    templates.py OUT.json [FOLDER...]

The templates are those that come with the Python package `trl`, whose `_training` variants mark what
the assistant says, and all `*.jinja` in FOLDERs. OUT.json holds, for every template and conversation,
the text and what the assistant says in it, or the error; a test of less-select reads it:

    LESS_SELECT_TEMPLATES=OUT.json cargo test --lib crosscheck_templates -- --ignored

What the assistant says is known where a template or its training variant marks it in the same text, and
where a template does nothing but append: a turn is then what comes behind its generation prompt.
"""

import datetime
import importlib.util
import json
import re
import sys
from pathlib import Path

import jinja2
from transformers.utils import chat_template_utils

# The day that less-select lives in (src/pool/chat/python.rs).
TODAY = datetime.datetime(2024, 7, 26)
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
# What looks like a special token in a template's source.
SPECIAL = re.compile(r"<[|｜][^|｜<>{}'\"]+[|｜]>|<(?:end|start)_of_turn>|<turn\|>|<\|turn>|\[/?[A-Z_]{4,}\]|</s>|<s>|<eos>|<bos>")


def talk(*contents, system=None):
    messages = [{"role": "system", "content": system}] if system is not None else []
    for turn, content in enumerate(contents):
        messages.append({"role": ("user", "assistant")[turn % 2], "content": content})
    return messages


def call(name, **arguments):
    return {"id": "call12345", "type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather at a place, <now> & 'there'.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "Where, e.g. \"Köln\""},
                    "days": {"type": "integer", "description": "How many", "default": 1},
                    "unit": {"type": "string", "description": "Unit", "enum": ["C", "F"]},
                },
                "required": ["place"],
            },
        },
    }
]
CALL = call("weather", place="Köln", days=2, exact=True, range=[1.5, None])
TOOL_TURNS = [
    {"role": "user", "content": "Weather in Köln?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call12345", "name": "weather", "content": '{"sky": "clear"}'},
    {"role": "assistant", "content": "It is clear."},
]
SAYS_AND_CALLS = [
    {"role": "user", "content": "Weather in Köln?"},
    {"role": "assistant", "content": "I will look.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call12345", "name": "weather", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Sun."},
]
TWO_CALLS = [
    {"role": "user", "content": "Weather in Köln and Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL, dict(call("weather", place="Rome"), id="call67890")]},
    {"role": "tool", "tool_call_id": "call12345", "name": "weather", "content": "rain"},
    {"role": "tool", "tool_call_id": "call67890", "name": "weather", "content": "sun"},
    {"role": "assistant", "content": "Rain and sun."},
]
THOUGHTS = [
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2", "reasoning_content": "One and one."},
    {"role": "user", "content": "And one more?"},
    {"role": "assistant", "content": "3", "reasoning": "Two and\none."},
]
CONVERSATIONS = {
    "single": (talk("What is the capital of France?", "Paris"), {}),
    "multi": (talk("2+2?", "4", "3+3?", "6", "Both?", "10"), {}),
    "system": (talk("Hi", "Hello!", "Bye", "Goodbye.", system="Be polite.\nBe brief."), {}),
    "blanks": (talk(" Hi\n", "\n Hello \n", "Bye ", "Goodbye\n\n"), {}),
    "unicode": (talk("你好 🦀", "世界 “引用” & <b>é</b>"), {}),
    "no answer": (talk("One", "Two", "Three"), {}),
    "assistant first": (talk("One", "Two")[1:], {}),
    "two users": (talk("One", "Two")[:1] + talk("One", "Two"), {}),
    "thought inside": (talk("1+1?", "<think>\nHm.\n</think>\n\n2", "2+2?", "<think>\nWell.\n</think>\n\n4"), {}),
    "thoughts": (THOUGHTS, {}),
    "thought off": (talk("1+1?", "2"), {"enable_thinking": False}),
    "tools unused": (talk("Hi", "Hello!", system="Be brief."), {"tools": TOOLS}),
    "tools": (TOOL_TURNS, {"tools": TOOLS}),
    "says and calls": (SAYS_AND_CALLS, {"tools": TOOLS}),
    "two calls": (TWO_CALLS, {"tools": TOOLS}),
    "tools without list": (TOOL_TURNS, {}),
    "arguments as text": (
        [
            TOOL_TURNS[0],
            {"role": "assistant", "content": "", "tool_calls": [dict(CALL, function={"name": "weather", "arguments": '{"place": "Köln"}'})]},
            *TOOL_TURNS[2:],
        ],
        {"tools": TOOLS},
    ),
}


def compiled_on_that_day(template):
    compiled = COMPILE(template)
    compiled.globals["strftime_now"] = TODAY.strftime
    return compiled


COMPILE = chat_template_utils._compile_jinja_template
chat_template_utils._compile_jinja_template = compiled_on_that_day


def render(source, messages, variables, mask=False):
    """Text and character ranges of generation blocks, or what went wrong."""
    # As `apply_chat_template` does.
    messages = [{key: value for key, value in turn.items() if value is not None} for turn in messages]
    try:
        texts, spans = chat_template_utils.render_jinja_template(
            conversations=[messages], chat_template=source, return_assistant_tokens_mask=mask, **{**NAMED, **variables}
        )
    except Exception as err:
        # Its own words are only those that the template raises.
        raised = type(err) is jinja2.exceptions.TemplateError
        return None, None, {"raised": raised, "message": str(err), "type": type(err).__name__}
    return texts[0], spans[0] if mask else None, None


def blocks(text, training, messages, variables):
    """What the variant for training marks, if it renders the same text."""
    marked, spans, _ = render(training, messages, variables, mask=True)
    return spans if marked == text else None


def appended(text, source, messages, variables):
    """What each turn of the assistant appends to its generation prompt, if all turns do so."""
    spans = []
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt, _, _ = render(source, messages[:turn], {**variables, "add_generation_prompt": True})
            through, _, _ = render(source, messages[: turn + 1], variables)
            if prompt is None or through is None or not (text.startswith(through) and through.startswith(prompt)):
                return None
            spans.append((len(prompt), len(through)))
    return spans


def golden(source, training, messages, variables):
    text, _, error = render(source, messages, variables)
    if text is None:
        return {"error": error, **said(messages, "")}
    has_blocks = "endgeneration" in source
    training = source if has_blocks else training
    spans = blocks(text, training, messages, variables) if training else None
    if spans is None and not has_blocks:
        spans = appended(text, source, messages, variables)
    at = lambda char: len(text[:char].encode())
    supervised = spans and [[at(start), at(end)] for start, end in spans]
    return {"text": text, "supervised": supervised, **said(messages, text)}


def words(value):
    """The words of all texts in a value, names of fields left out."""
    if isinstance(value, dict):
        return {word for key, each in value.items() if key not in ("role", "type", "id") for word in words(each)}
    if isinstance(value, list):
        return {word for each in value for word in words(each)}
    return set(re.findall(r"[^\W_]+", value)) if isinstance(value, str) else set()


def said(messages, text):
    """Words that only the assistant says, and whether `text` is without what one turn says."""
    turns = [turn for turn in messages if turn["role"] == "assistant"]
    others = words([turn for turn in messages if turn["role"] != "assistant"])
    is_lost = any(words(turn).isdisjoint(words(text)) for turn in turns if words(turn))
    return {"said": sorted(words(turns) - others - {"think", "function"}), "is_lost": is_lost}


def templates(folders):
    """Name, source and, where there is one, the variant for training."""
    trl = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
    for path in sorted(trl.glob("*.jinja")):
        if not path.stem.endswith("_training"):
            training = path.with_name(f"{path.stem}_training.jinja")
            yield f"trl/{path.stem}", path.read_text("utf-8"), training.read_text("utf-8") if training.exists() else None
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.jinja")):
            yield f"{Path(folder).name}/{path.stem}", path.read_text("utf-8"), None


def main(out, folders):
    cases = []
    for name, source, training in templates(folders):
        goldens = [
            {"name": label, "messages": messages, "variables": variables, **golden(source, training, messages, variables)}
            for label, (messages, variables) in CONVERSATIONS.items()
        ]
        special = sorted(set(SPECIAL.findall(source)) | set(NAMED.values()))
        cases.append({"name": name, "source": source, "named": NAMED, "special_tokens": special, "conversations": goldens})
    n_marked = sum(case.get("supervised") is not None for family in cases for case in family["conversations"])
    print(f"  {len(cases)} templates, {len(CONVERSATIONS)} conversations each, {n_marked} with what the assistant says")
    Path(out).write_text(json.dumps({"cases": cases}, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
