//! What is said in files that are no training data: evaluations.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::InputErrorKind;
use super::read::for_each_row;
use super::shape::Columns;
use super::source::files;
use super::{Message, PoolError, Source};

/// Reads the rows of `source`, gives each as messages to `visit` with the name of
/// its file. A row that is no conversation, such as a question with choices, is
/// what its columns of text hold, a turn each. `columns` are the names of own
/// columns, as for a pool.
///
/// # Errors
///
/// If a file cannot be read, or a row of it is no JSON object.
pub fn for_each_said(
    source: &Source,
    columns: &BTreeMap<String, String>,
    visit: &mut dyn FnMut(&str, Vec<Message>),
) -> Result<(), PoolError> {
    let columns = Columns::new(columns, true)?;
    for file in files(source)? {
        for_each_row(&file, &Cell::new(0), &mut |line, row| {
            let row = row.map_err(|reason| {
                let reason = reason.to_string();
                file.fail(InputErrorKind::Row { line, reason })
            })?;
            let messages = match columns.conversation(&row) {
                Ok(conversation) => conversation.messages(),
                Err(_) => texts(&row),
            };
            visit(&file.name, messages);
            Ok(())
        })?;
    }
    Ok(())
}

fn texts(row: &Map<String, Value>) -> Vec<Message> {
    let texts = row.values().filter_map(Value::as_str);
    texts.map(|text| Message { role: "user".to_owned(), content: text.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_conversations_or_their_texts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eval.jsonl");
        let rows = [
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
            r#"{"question": "c", "choices": ["d"], "answer": "e"}"#,
        ];
        fs_err::write(&path, rows.join("\n")).unwrap();
        let source: Source = path.display().to_string().parse().unwrap();
        let mut said = Vec::new();
        for_each_said(&source, &BTreeMap::new(), &mut |_, messages| {
            said.extend(messages.into_iter().map(|turn| turn.content));
        })
        .unwrap();
        assert_eq!(said, ["a", "b", "c", "e"]);

        fs_err::write(&path, "no json").unwrap();
        let failed = for_each_said(&source, &BTreeMap::new(), &mut |_, _| {});
        let PoolError::Input { kind, .. } = failed.unwrap_err() else { panic!("of an input") };
        insta::assert_snapshot!(kind, @"row 1: not valid json: expected ident at column 2");
    }
}
