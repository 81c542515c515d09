//! The dataset card, and the entry by which LLaMA-Factory finds the data.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::columns::Schema;
use super::contents::{Contents, Part};
use crate::method::Method;

/// Rows of a composition table at most; `less-select.json` has them all.
const TABLE_ROWS: usize = 30;

/// `README.md`: what `datasets` reads first, and people too.
pub(super) fn readme(contents: &Contents<'_>) -> String {
    let subset = &contents.subset;
    let mut text = front_matter(contents);
    let _ = write!(
        text,
        "\n# A subset chosen by less-select\n\n\
         {} examples, {} tokens ({} of them supervised), in order of rank: the examples of an \
         instruction pool {}.\n\nMethod: {}.\n",
        subset.n_rows,
        subset.n_tokens,
        subset.n_supervised,
        contents.method.chooses(),
        contents.method.source(),
    );
    text.push_str(&how_to_use(contents));
    text.push_str("\n## Columns\n\n| column | type | meaning |\n|---|---|---|\n");
    for (name, type_name) in &subset.columns {
        let type_name = code(type_name.as_str().unwrap_or_default());
        let meaning = meaning(contents.method, subset.schema, name);
        let _ = writeln!(text, "| {} | {type_name} | {meaning} |", code(name));
    }
    text.push_str("\n## Composition\n");
    composition(&mut text, "source", &subset.by_source, subset.n_rows);
    composition(&mut text, "subtask", &subset.by_subtask, subset.n_rows);
    if !contents.notes.is_empty() {
        text.push_str("\n## Notes\n\n");
        for note in &contents.notes {
            let _ = writeln!(text, "- {}.", cell(note));
        }
    }
    let _ = write!(
        text,
        "\n## License\n\nEvery row keeps the license of its source.\n\n\
         ## How it was made\n\nAlso in `less-select.json` and in the Parquet metadata.\n\n\
         ```json\n{:#}\n```\n",
        contents.provenance
    );
    text
}

/// The exact file name, never a glob: `datasets` would cache rows of another
/// folder under the same key.
fn front_matter(contents: &Contents<'_>) -> String {
    format!(
        "---\nlicense: other\ntags:\n- {}\n- data-selection\nsize_categories:\n- {}\n\
         configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {}\n---\n",
        contents.method,
        size_category(contents.subset.n_rows),
        contents.subset.data_file
    )
}

/// The Hub's words for the number of rows.
fn size_category(n_rows: usize) -> &'static str {
    match n_rows {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        _ => "n>10M",
    }
}

/// Lines that were run against the trainers.
fn how_to_use(contents: &Contents<'_>) -> String {
    let mut text = format!(
        "\nThe data is one file, `{}`. Its name, and the folder's, change when the content does, \
         because trainers cache by path: point them at the new folder after every run.\n\n\
         ```python\nfrom datasets import load_dataset\n\n\
         subset = load_dataset(\"path/to/this/folder\", split=\"train\")\n```\n",
        contents.subset.data_file
    );
    if contents.subset.schema != Schema::Original {
        text.push_str(
            "\n| trainer | setting |\n|---|---|\n\
             | TRL | `--dataset_name <folder>` |\n\
             | LLaMA-Factory | `dataset_dir: <folder>`, `dataset: less_subset` |\n\
             | Axolotl | `datasets: [{path: <folder>, type: chat_template, split: train}]` |\n\
             | ms-swift | `--dataset <folder>` |\n",
        );
    }
    text
}

fn meaning(method: Method, schema: Schema, column: &str) -> &'static str {
    match (schema, column) {
        (Schema::Original, _) => "as the source has it",
        (_, "messages") => "the conversation, whole",
        (_, "id") => "identity by content: a hash of the token ids and the label mask",
        (_, "source") => "the pool source the row came from",
        (_, "less_score") => method.score(),
        (_, "less_rank") => "place in the order of selection, from 1",
        (_, "less_subtask") => {
            "the subtask it was taken for, `TARGET/SUBTASK`, or the method where there is none"
        }
        _ => "",
    }
}

fn composition(text: &mut String, heading: &str, parts: &[Part], n_rows: usize) {
    let _ = write!(text, "\n| {heading} | rows | share | tokens |\n|---|---:|---:|---:|\n");
    for part in parts.iter().take(TABLE_ROWS) {
        let share = 100.0 * part.n_rows as f64 / n_rows as f64;
        let name = cell(&part.name);
        let _ = writeln!(text, "| {name} | {} | {share:.1}% | {} |", part.n_rows, part.n_tokens);
    }
    if parts.len() > TABLE_ROWS {
        let _ = writeln!(text, "\nand {} more", parts.len() - TABLE_ROWS);
    }
}

/// `text` as plain words of a Markdown line: user data must not make tables,
/// links or HTML.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => cell.push_str("&lt;"),
            '&' => cell.push_str("&amp;"),
            '|' | '\\' | '*' | '[' | ']' | '#' | '!' => cell.extend(['\\', character]),
            control if control.is_control() => cell.push(' '),
            other => cell.push(other),
        }
    }
    cell
}

/// `text` as a code span in a table.
fn code(text: &str) -> String {
    let inside: String = text
        .chars()
        .map(|character| if character == '`' || character.is_control() { ' ' } else { character })
        .collect();
    format!("`{}`", inside.replace('|', "\\|"))
}

/// `dataset_info.json` for LLaMA-Factory, where it knows the shape of the rows:
/// `dataset_dir: <this folder>`, `dataset: less_subset`.
pub(super) fn llama_factory_entry(columns: &[String]) -> Option<Value> {
    let has = |names: &[&str]| names.iter().all(|name| columns.iter().any(|column| column == name));
    let entry = if has(&["messages"]) {
        json!({
            "file_name": "data",
            "formatting": "sharegpt",
            "columns": { "messages": "messages" },
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        })
    } else if has(&["conversations"]) {
        json!({
            "file_name": "data",
            "formatting": "sharegpt",
            "columns": { "messages": "conversations" },
        })
    } else if has(&["instruction", "input", "output"]) {
        json!({ "file_name": "data", "formatting": "alpaca" })
    } else if has(&["prompt", "completion"]) {
        json!({
            "file_name": "data",
            "formatting": "alpaca",
            "columns": { "prompt": "prompt", "response": "completion" },
        })
    } else {
        return None;
    };
    Some(json!({ "less_subset": entry }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_text_makes_no_table_link_or_html() {
        assert_eq!(
            cell("a|b\n<script>[x](y)&\u{1b}[31m"),
            "a\\|b &lt;script>\\[x\\](y)&amp; \\[31m"
        );
    }

    #[test]
    fn a_code_span_ends_where_it_should() {
        assert_eq!(code("struct<a|`b`\n: string>"), "`struct<a\\| b  : string>`");
    }

    #[test]
    fn llama_factory_gets_an_entry_for_the_shapes_it_knows() {
        let formatting = |columns: &[&str]| {
            let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
            let entry = llama_factory_entry(&columns)?;
            entry["less_subset"]["formatting"].as_str().map(str::to_owned)
        };
        assert_eq!(formatting(&["messages", "id"]).as_deref(), Some("sharegpt"));
        assert_eq!(formatting(&["id", "conversations"]).as_deref(), Some("sharegpt"));
        assert_eq!(formatting(&["instruction", "input", "output"]).as_deref(), Some("alpaca"));
        assert_eq!(formatting(&["prompt", "completion"]).as_deref(), Some("alpaca"));
        assert_eq!(formatting(&["question", "answer"]), None);
    }
}
