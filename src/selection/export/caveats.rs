//! What trainers will stumble over in a subset, said before they do.

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
