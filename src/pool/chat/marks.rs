//! Marks around what the assistant says, for the length of a rendering.

use std::ops::Range;

use serde_json::Value;

use crate::pool::{Conversation, Turn};

/// Two characters that occur nowhere in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) open: char,
    pub(super) close: char,
}

/// On which side of the content's outer blanks a mark stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// At the very end of the content.
    Outer,
    /// At the first or last character that is not blank.
    Inner,
}

/// Where the marks of a content stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// The mark at its beginning; `None` leaves it out.
    pub(super) open: Option<Edge>,
    /// The mark at its end.
    pub(super) close: Edge,
}

impl Placement {
    /// What to try for `turns`, in order.
    pub(super) fn candidates(turns: &[Turn]) -> &'static [Self] {
        const fn marked(open: Edge, close: Edge) -> Placement {
            Placement { open: Some(open), close }
        }
        const WITHOUT_BLANKS: [Placement; 2] =
            [marked(Edge::Outer, Edge::Outer), Placement { open: None, close: Edge::Outer }];
        const WITH_BLANKS: [Placement; 6] = [
            marked(Edge::Outer, Edge::Outer),
            marked(Edge::Inner, Edge::Inner),
            marked(Edge::Inner, Edge::Outer),
            marked(Edge::Outer, Edge::Inner),
            Placement { open: None, close: Edge::Outer },
            Placement { open: None, close: Edge::Inner },
        ];
        let has_blank_edge = |turn: &Turn| turn.content().trim() != turn.content();
        if turns.iter().any(|turn| turn.is_assistant() && has_blank_edge(turn)) {
            &WITH_BLANKS
        } else {
            // The edges are the same.
            &WITHOUT_BLANKS
        }
    }
}

/// A text the marks were taken out of.
#[derive(Clone, Debug, Default)]
pub(super) struct Marked {
    pub(super) text: String,
    /// Where opening marks stood, as byte positions in `text`.
    pub(super) opens: Vec<usize>,
    /// Where closing marks stood.
    pub(super) closes: Vec<usize>,
}

impl Marked {
    /// The ranges between marks, if every opening one has its closing one
    /// behind it and before the next.
    pub(super) fn spans(&self) -> Option<Vec<Range<usize>>> {
        let spans: Vec<_> =
            self.opens.iter().zip(&self.closes).map(|(open, close)| *open..*close).collect();
        let paired = self.opens.len() == self.closes.len()
            && spans.iter().all(|span| span.start <= span.end)
            && spans.windows(2).all(|pair| pair[0].end <= pair[1].start);
        paired.then_some(spans)
    }
}

impl Marks {
    /// The first two private-use characters that `conversation` does not
    /// contain; `None` if it uses all 6,400 up.
    pub(super) fn unused_in(conversation: &Conversation) -> Option<Self> {
        let is_used = |mark: char| {
            let fields = conversation.turns.iter().flat_map(|turn| turn.fields().values());
            fields.chain(conversation.variables.values()).any(|value| contains(value, mark))
        };
        let mut unused = ('\u{e000}'..='\u{f8ff}').filter(|mark| !is_used(*mark));
        Some(Self { open: unused.next()?, close: unused.next()? })
    }

    /// `turn` with marks in its content.
    pub(super) fn put(self, turn: &Turn, placement: Placement) -> Turn {
        let content = turn.content();
        let (start, end) = (content.len() - content.trim_start().len(), content.trim_end().len());
        let at_start = |edge: Edge| if edge == Edge::Outer { 0 } else { start.min(end) };
        let open = placement.open.map(at_start);
        let close = if placement.close == Edge::Outer { content.len() } else { end };
        let middle = open.unwrap_or(0);
        let mut marked = String::with_capacity(content.len() + 6);
        marked.push_str(&content[..middle]);
        marked.extend(open.map(|_| self.open));
        marked.push_str(&content[middle..close]);
        marked.push(self.close);
        marked.push_str(&content[close..]);
        turn.with_content(&marked)
    }

    /// `text` without the marks, and where they stood.
    pub(super) fn take_out(self, text: &str) -> Marked {
        let mut marked = Marked { text: String::with_capacity(text.len()), ..Marked::default() };
        let mut rest = text;
        while let Some(at) = rest.find([self.open, self.close]) {
            marked.text.push_str(&rest[..at]);
            let positions = if rest[at..].starts_with(self.open) {
                &mut marked.opens
            } else {
                &mut marked.closes
            };
            positions.push(marked.text.len());
            // Both marks have three bytes, as every private-use character here.
            rest = &rest[at + self.open.len_utf8()..];
        }
        marked.text.push_str(rest);
        marked
    }
}

/// Whether `mark` occurs in a text of `value`.
fn contains(value: &Value, mark: char) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains(mark),
        Value::Array(values) => values.iter().any(|value| contains(value, mark)),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains(mark) || contains(value, mark))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn conversation(content: &str) -> Conversation {
        let turns = vec![Turn::new("assistant", content)];
        Conversation { turns, ..Conversation::default() }
    }

    #[test]
    fn marks_are_characters_that_nobody_uses() {
        let mut used = conversation("a\u{e000}b\u{e002}");
        used.variables.insert("tools".to_owned(), json!([{ "name\u{e003}": "\u{e004}" }]));
        let marks = Marks::unused_in(&used).unwrap();
        assert_eq!(marks, Marks { open: '\u{e001}', close: '\u{e005}' });
        let every_one: String = ('\u{e000}'..='\u{f8fe}').collect();
        assert_eq!(Marks::unused_in(&conversation(&every_one)), None);
    }

    #[test]
    fn unpaired_marks_are_no_spans() {
        let marks = Marks { open: '<', close: '>' };
        assert_eq!(marks.take_out("a<b>c<d>").spans(), Some(vec![1..2, 3..4]));
        for unpaired in ["a<b", "a>b<c", "<<a>>", "<a>>"] {
            assert_eq!(marks.take_out(unpaired).spans(), None, "{unpaired}");
        }
    }

    proptest! {
        #[test]
        fn marks_put_in_and_taken_out_leave_the_content(content in "[ \na-cé🦀]{0,8}") {
            let conversation = conversation(&content);
            let marks = Marks::unused_in(&conversation).unwrap();
            for placement in Placement::candidates(&conversation.turns) {
                let marked = marks.take_out(marks.put(&conversation.turns[0], *placement).content());
                prop_assert_eq!(&marked.text, &content);
                prop_assert_eq!(marked.opens.len(), usize::from(placement.open.is_some()));
                if let Some(spans) = marked.spans() {
                    prop_assert_eq!(content[spans[0].clone()].trim(), content.trim());
                }
            }
        }
    }
}
