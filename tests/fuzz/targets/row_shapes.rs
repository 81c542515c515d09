//! Rows of the known shapes with values of every kind: bytes choose what stands
//! where, so that all of it is JSON.
#![no_main]

use less_select_fuzz as fuzz;
use serde_json::{Map, Value, json};

const COLUMNS: [&str; 12] = [
    "messages",
    "conversations",
    "instruction",
    "input",
    "output",
    "prompt",
    "completion",
    "response",
    "system",
    "subtask",
    "question",
    "answer",
];
const KEYS: [&str; 6] = ["role", "content", "from", "value", "type", "text"];
const TEXTS: [&str; 10] = [
    "user",
    "assistant",
    "system",
    "human",
    "gpt",
    "text",
    "observation",
    "",
    " \n<|im_end|> ",
    "\u{e000}\u{e001}caf\u{e9}",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.iter().copied();
    let columns: &[(&str, &str)] = match bytes.next().unwrap_or(0) % 4 {
        0 => &[("prompt", "question"), ("completion", "answer")],
        1 => &[("messages", "prompt"), ("subtask", "subtask")],
        _ => &[],
    };
    let mut lines = Vec::new();
    while bytes.len() > 0 && lines.len() < 1 << 16 {
        let mut row = Map::new();
        for _ in 0..bytes.next().unwrap_or(0) % 4 {
            let column = pick(&COLUMNS, &mut bytes);
            row.insert(column.to_owned(), value(&mut bytes, 0));
        }
        serde_json::to_writer(&mut lines, &row).expect("memory");
        lines.push(b'\n');
    }
    let _ = fuzz::read_pool(&fuzz::file("pool.jsonl", &lines), columns);
});

fn pick<'a>(words: &[&'a str], bytes: &mut impl Iterator<Item = u8>) -> &'a str {
    words[usize::from(bytes.next().unwrap_or(0)) % words.len()]
}

fn value(bytes: &mut impl Iterator<Item = u8>, depth: usize) -> Value {
    match bytes.next().unwrap_or(0) % 12 {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(i64::MIN),
        3 => json!(1e300),
        4 | 5 if depth < 4 => {
            let n = bytes.next().unwrap_or(0) % 5;
            (0..n).map(|_| value(bytes, depth + 1)).collect()
        }
        6..=8 if depth < 4 => {
            let n = bytes.next().unwrap_or(0) % 4;
            (0..n).map(|_| (pick(&KEYS, bytes), value(bytes, depth + 1))).collect()
        }
        _ => json!(pick(&TEXTS, bytes)),
    }
}
