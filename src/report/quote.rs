//! A few words of a row, safe to show anywhere.
//!
//! Rows are other people's text. What is shown of them is short, on one line,
//! and without the characters by which text takes over a terminal or turns a
//! page around.

use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::influence::scores::{ScoreRow, ScoreTable};
use crate::pool::table::Record;
use crate::selection::Selected;

/// Characters of a turn that the report keeps.
const MAX_CHARS: usize = 400;

/// A row of the pool as the report shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quote {
    /// Place in the selection, from 1; of a row that is not in it, place by score.
    pub rank: usize,
    /// Whether it is in the subset.
    pub selected: bool,
    /// Identity by content, 32 hex digits.
    pub id: String,
    /// The pool source it came from.
    pub source: String,
    /// The subtask it was taken for; of a row that was not, the one it serves best.
    pub subtask: String,
    /// Its influence on that subtask.
    pub score: f32,
    /// Tokens the model sees.
    pub n_tokens: u32,
    /// Tokens that carry loss.
    pub n_supervised: u32,
    /// Mean token loss.
    pub loss: f32,
    /// Norm of the projected direction.
    pub norm: f32,
    /// The start of its first user turn, on one line.
    pub prompt: String,
    /// The start of its first assistant turn, on one line.
    pub answer: String,
}

impl Quote {
    pub(super) fn of(
        scores: &ScoreTable,
        place: &Selected,
        selected: bool,
        record: &Record,
    ) -> Self {
        let ScoreRow { id, source, n_tokens, n_supervised, loss, norm, flag: _, by_subtask: _ } =
            &scores.rows[place.position];
        let first = |role: &str| {
            let turn = record.messages.iter().find(|message| message.role == role);
            turn.map_or_else(String::new, |turn| one_line(&turn.content, MAX_CHARS))
        };
        Self {
            rank: place.rank,
            selected,
            id: id.to_string(),
            source: one_line(source, MAX_CHARS),
            subtask: one_line(&scores.subtasks[place.subtask], MAX_CHARS),
            score: place.score,
            n_tokens: *n_tokens,
            n_supervised: *n_supervised,
            loss: *loss,
            norm: *norm,
            prompt: first("user"),
            answer: first("assistant"),
        }
    }
}

/// The first `max_chars` characters of `text` on one line: runs of white space
/// and control characters are one space, characters that reorder text are left
/// out, and what is cut ends in `…`. Reads no further than it must.
pub(crate) fn one_line(text: &str, max_chars: usize) -> String {
    let mut line = String::new();
    let mut n_chars = 0;
    let mut gap = false;
    for character in text.chars() {
        if character.is_whitespace() || character.is_control() {
            gap = n_chars > 0;
        } else if !reorders_text(character) {
            if n_chars + usize::from(gap) >= max_chars {
                line.push('…');
                break;
            }
            if gap {
                line.push(' ');
            }
            line.push(character);
            n_chars += 1 + usize::from(gap);
            gap = false;
        }
    }
    line
}

/// Directional marks, overrides and isolates, and the invisible characters
/// beside them. Joiners stay: scripts and emoji need them.
fn reorders_text(character: char) -> bool {
    matches!(character,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// As much of `text` as fits `width` columns of a terminal, `…` included.
pub(crate) fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut fitting = String::new();
    let mut left = width.saturating_sub(1);
    for character in text.chars() {
        let Some(rest) = left.checked_sub(character.width().unwrap_or(0)) else { break };
        fitting.push(character);
        left = rest;
    }
    fitting.push('…');
    fitting
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn white_space_and_control_characters_become_one_space() {
        assert_eq!(one_line("  a\r\n\tb\u{1b}[31mc\0\u{7}d \n", 80), "a b [31mc d");
    }

    #[test]
    fn text_cannot_turn_the_line_around() {
        assert_eq!(one_line("abc\u{202e}cba\u{2066}\u{200f}\u{feff}.", 80), "abccba.");
        assert_eq!(one_line("👩\u{200d}🚀", 80), "👩\u{200d}🚀");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(one_line("abc def", 7), "abc def");
        assert_eq!(one_line("abc def", 6), "abc de…");
        assert_eq!(one_line("abc def", 4), "abc…");
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 5), "abcd…");
        assert_eq!(fit("漢字漢字", 6), "漢字…");
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_line_or_its_bounds(text in ".*\\PC*", max in 0..50_usize) {
            let line = one_line(&text, max);
            prop_assert!(!line.chars().any(char::is_control));
            prop_assert!(line.chars().count() <= max + 1);
            prop_assert!(fit(&line, max.max(1)).width() <= max.max(1));
        }
    }
}
