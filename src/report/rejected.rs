//! Rows that never entered the pool.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::quote::one_line;

/// Places given for each reason.
const N_PLACES: usize = 5;

/// Characters of a reason or a place that the report keeps.
const MAX_CHARS: usize = 200;

/// Rows that were rejected for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Why, with `#` for numbers.
    pub reason: String,
    /// How many of those that are listed in `rejects.jsonl`.
    pub n_rows: u64,
    /// The first of them: file and line.
    pub places: Vec<String>,
}

#[derive(Deserialize)]
struct RejectLine {
    file: String,
    line: u64,
    reason: String,
}

impl Rejected {
    /// By reason, the most frequent first, of the lines of `rejects.jsonl`.
    ///
    /// # Errors
    ///
    /// If a line is none of that file.
    pub fn of(rejects: impl IntoIterator<Item = io::Result<String>>) -> io::Result<Vec<Self>> {
        let mut reasons: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
        for line in rejects {
            let RejectLine { file, line, reason } = serde_json::from_str(&line?)?;
            let (n_rows, places) = reasons.entry(without_numbers(&reason)).or_default();
            *n_rows += 1;
            if places.len() < N_PLACES {
                places.push(one_line(&format!("{file}:{line}"), MAX_CHARS));
            }
        }
        let rejected =
            reasons.into_iter().map(|(reason, (n_rows, places))| Self { reason, n_rows, places });
        let mut rejected: Vec<Self> = rejected.collect();
        // Stable: what is equal stays in order of reason.
        rejected.sort_by_key(|rejected| Reverse(rejected.n_rows));
        Ok(rejected)
    }
}

/// `#` for every number, so that lengths and columns do not make reasons differ.
fn without_numbers(reason: &str) -> String {
    let mut shape = String::new();
    for character in one_line(reason, MAX_CHARS).chars() {
        if !character.is_ascii_digit() {
            shape.push(character);
        } else if !shape.ends_with('#') {
            shape.push('#');
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_one_reason_are_counted_together() {
        let line = |file: &str, line: u64, reason: &str| {
            Ok(serde_json::json!({
                "side": "pool", "file": file, "line": line, "kind": "malformed", "reason": reason,
            })
            .to_string())
        };
        let rejects = [
            line("a.jsonl", 3, "no assistant turn in the conversation"),
            line("a.jsonl", 7, "the assistant's tokens begin after the first 1024 of 2301"),
            line("b.jsonl", 1, "the assistant's tokens begin after the first 1024 of 97"),
        ];
        let rejected = |reason: &str, n_rows, places: &[&str]| Rejected {
            reason: reason.to_owned(),
            n_rows,
            places: places.iter().map(|place| (*place).to_owned()).collect(),
        };
        assert_eq!(
            Rejected::of(rejects).unwrap(),
            [
                rejected(
                    "the assistant's tokens begin after the first # of #",
                    2,
                    &["a.jsonl:7", "b.jsonl:1"]
                ),
                rejected("no assistant turn in the conversation", 1, &["a.jsonl:3"]),
            ]
        );
    }

    #[test]
    fn a_line_of_something_else_is_an_error() {
        assert!(Rejected::of([Ok("[]".to_owned())]).is_err());
    }
}
