//! What trainers will stumble over in a subset, said before they do.

use serde_json::Value;

use super::SubsetRow;
use super::columns::Columns;
use super::own_columns::OwnColumns;
use crate::pool::Message;

/// Columns that change what a trainer does when they stand beside `messages`:
/// it takes the row for another task, or for one that is tokenized already.
const MISREAD_BESIDE_MESSAGES: [&str; 16] = [
    "prompt",
    "text",
    "input_ids",
    "labels",
    "completion_mask",
    "assistant_masks",
    "seq_lengths",
    "tools",
    "images",
    "label",
    "chosen",
    "rejected",
    "channel",
    "margin",
    "chat_template_kwargs",
    "rejected_response",
];

/// One sentence for each thing the user should know, without a final period.
pub(super) fn notes(rows: &[SubsetRow<'_>], columns: &Columns) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(uneven_turns(rows));
    notes.extend(calls_of_tools(rows, columns));
    if let Columns::Own(own) = columns {
        notes.extend(own.conflicts.iter().map(ToString::to_string));
        notes.extend(misread_columns(&columns.names()));
        notes.extend(differing_columns(own));
    }
    notes
}

fn uneven_turns(rows: &[SubsetRow<'_>]) -> Option<String> {
    let n_uneven = rows.iter().filter(|row| !alternates(&row.record.messages)).count();
    (n_uneven > 0).then(|| {
        format!(
            "{n_uneven} of {} rows do not alternate user and assistant turns; LLaMA-Factory drops such rows",
            rows.len()
        )
    })
}

/// Whether `messages` are pairs of a user and an assistant turn after an
/// optional system turn.
fn alternates(messages: &[Message]) -> bool {
    let turns = match messages {
        [first, turns @ ..] if first.role == "system" => turns,
        turns => turns,
    };
    !turns.is_empty()
        && turns.len().is_multiple_of(2)
        && turns
            .iter()
            .zip(["user", "assistant"].iter().cycle())
            .all(|(turn, role)| turn.role == *role)
}

/// `messages` hold what was said as text, and no more.
fn calls_of_tools(rows: &[SubsetRow<'_>], columns: &Columns) -> Option<String> {
    let calls = |turn: &Value| turn.get("tool_calls").is_some_and(|calls| !calls.is_null());
    let has_calls = |row: &&SubsetRow<'_>| {
        let lists = row.record.original.values().filter_map(Value::as_array);
        lists.flatten().any(calls)
    };
    let n_calling = rows.iter().filter(has_calls).count();
    let is_left_out = !matches!(columns, Columns::Own(_)) && n_calling > 0;
    is_left_out.then(|| {
        format!(
            "{n_calling} of {} rows call tools, which `messages` leave out; the `original` schema keeps them",
            rows.len()
        )
    })
}

fn misread_columns(names: &[String]) -> Option<String> {
    if !names.iter().any(|name| name == "messages") {
        return None;
    }
    let misread: Vec<String> = names
        .iter()
        .filter(|name| MISREAD_BESIDE_MESSAGES.contains(&name.as_str()))
        .map(|name| format!("`{name}`"))
        .collect();
    (!misread.is_empty()).then(|| {
        format!(
            "trainers read `messages` differently beside {}; the `messages` schema leaves such columns out",
            misread.join(", ")
        )
    })
}

fn differing_columns(own: &OwnColumns) -> Option<String> {
    let sorted = |columns: &Vec<String>| {
        let mut columns = columns.clone();
        columns.sort_unstable();
        columns
    };
    let mut sets = own.by_source.values().map(sorted);
    let first = sets.next()?;
    if sets.all(|columns| columns == first) {
        return None;
    }
    let sources: Vec<String> = (own.by_source.iter())
        .map(|(source, columns)| format!("`{source}` has {}", columns.join(", ")))
        .collect();
    Some(format!("sources differ in their columns, absent values are null: {}", sources.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Schema, row};
    use super::*;

    fn notes_of(schema: Schema, rows: &[SubsetRow<'_>]) -> String {
        notes(rows, &Columns::of(schema, rows).unwrap()).join("\n")
    }

    #[track_caller]
    fn check(roles: &[&str], expected: bool) {
        let row = row("a", roles, json!({}));
        assert_eq!(alternates(&row.record.messages), expected, "{roles:?}");
    }

    #[test]
    fn turns_alternate_in_pairs_after_an_optional_system_turn() {
        check(&["user", "assistant"], true);
        check(&["system", "user", "assistant", "user", "assistant"], true);
        check(&["user", "assistant", "user"], false);
        check(&["user", "user", "assistant", "assistant"], false);
        check(&["assistant", "user"], false);
        check(&["user", "assistant", "tool", "assistant"], false);
        check(&["system"], false);
        check(&[], false);
    }

    #[test]
    fn uneven_rows_are_counted() {
        let rows = [row("a", &["user", "assistant"], json!({})), row("a", &["user"], json!({}))];
        insta::assert_snapshot!(notes_of(Schema::Messages, &rows), @"1 of 2 rows do not alternate user and assistant turns; LLaMA-Factory drops such rows");
        assert_eq!(notes_of(Schema::Messages, &rows[..1]), "");
    }

    #[test]
    fn calls_of_tools_are_only_in_the_rows_own_columns() {
        let own = json!({ "messages": [{ "role": "assistant", "tool_calls": [{}] }] });
        let rows = [row("a", &["user", "assistant"], own)];
        insta::assert_snapshot!(notes_of(Schema::MessagesOnly, &rows), @"1 of 1 rows call tools, which `messages` leave out; the `original` schema keeps them");
        assert!(!notes_of(Schema::Original, &rows).contains("call tools"));
    }

    #[test]
    fn columns_that_trainers_misread_are_named() {
        let own = json!({"messages": [], "tools": "[]", "id": 1, "prompt": "why"});
        let rows = [row("a", &["user", "assistant"], own)];
        insta::assert_snapshot!(notes_of(Schema::Original, &rows), @"trainers read `messages` differently beside `tools`, `prompt`; the `messages` schema leaves such columns out");
        assert_eq!(notes_of(Schema::Messages, &rows), "");
    }

    #[test]
    fn sources_of_different_shapes_are_named() {
        let turns = ["user", "assistant"];
        let rows = [
            row("p3", &turns, json!({"prompt": "a", "completion": "b"})),
            row("alpaca", &turns, json!({"instruction": "a", "output": "b"})),
            row("p3", &turns, json!({"completion": "b", "prompt": "a"})),
        ];
        insta::assert_snapshot!(notes_of(Schema::Original, &rows), @"sources differ in their columns, absent values are null: `alpaca` has instruction, output; `p3` has prompt, completion");
        assert_eq!(notes_of(Schema::Original, &rows[..1]), "");
    }
}
