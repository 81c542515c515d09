//! Conversations as text, and which of it the assistant says.
//!
//! [`ChatTemplate`] renders a conversation as Python's `transformers` does.
//! What carries loss is found by asking the template, never by looking for
//! prefixes in its output:
//!
//! - A template with `{% generation %}` blocks says it itself.
//! - For any other, every assistant turn's content is rendered between two
//!   characters that occur nowhere else. Taken out again, they must leave the
//!   plain rendering; then they stood where the content begins and ends. A
//!   template that trims content swallows the blanks inside the marks, so the
//!   marks are tried outside and inside of them. One that rewrites the
//!   beginning (it drops a thought, say) is asked with a mark at the end only:
//!   the turn then begins where its generation prompt ends.
//! - The end of turn is what the template writes after the content when the
//!   conversation stops there, through its first special token
//!   (`<|im_end|>` but not the line end behind it). Without a special token it
//!   is that text without trailing blanks.

mod generation;
mod marks;
mod python;
mod template;

use std::cmp::Reverse;
use std::ops::Range;

use marks::{Edge, Marks, Placement};
pub(super) use template::ChatTemplate;

use super::Message;
use super::reject::RejectReason;

/// Most turns of a conversation. Where every turn ends is found by rendering
/// those up to it, so the time goes with the square.
const MAX_TURNS: usize = 1024;

/// A conversation as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    /// What the model reads.
    pub(super) text: String,
    /// Byte ranges of what the assistant says, in order, each through its end
    /// of turn.
    pub(super) supervised: Vec<Range<usize>>,
}

/// Renders `messages` and finds what the assistant says in them.
///
/// `special_tokens` are the texts of the tokenizer's special tokens.
pub(super) fn render(
    template: &ChatTemplate,
    special_tokens: &[String],
    messages: &[Message],
) -> Result<Rendered, RejectReason> {
    if !messages.iter().any(is_assistant) {
        return Err(RejectReason::NoAssistant);
    }
    if messages.len() > MAX_TURNS {
        return Err(RejectReason::TooManyTurns { n_turns: messages.len(), max_turns: MAX_TURNS });
    }
    let marks = Marks::unused_in(messages).ok_or(RejectReason::Rewritten)?;
    if template.has_generation() {
        let marked = marks.take_out(&template.render_generation(messages, marks)?);
        let supervised = marked.spans().ok_or(RejectReason::Rewritten)?;
        return Ok(Rendered { text: marked.text, supervised });
    }
    let text = template.render(messages)?;
    let conversation = Conversation { template, messages, marks, text: &text };
    let (contents, close) = conversation.contents().ok_or(RejectReason::Rewritten)?;
    let mut supervised = Vec::with_capacity(contents.len());
    for (turn, content) in conversation.assistant_turns().zip(contents) {
        let tail = conversation.end_of_turn(turn, content.end, close)?;
        supervised.push(content.start..content.end + closing_bytes(tail, special_tokens));
    }
    Ok(Rendered { text, supervised })
}

fn is_assistant(message: &Message) -> bool {
    message.role == "assistant"
}

/// How much of `tail`, the text after an assistant's content, belongs to it.
fn closing_bytes(tail: &str, special_tokens: &[String]) -> usize {
    special_tokens
        .iter()
        .filter_map(|token| Some((tail.find(token.as_str())?, Reverse(token.len()))))
        .min()
        .map_or_else(|| tail.trim_end().len(), |(start, Reverse(n_bytes))| start + n_bytes)
}

/// A conversation and its plain rendering.
struct Conversation<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Message],
    marks: Marks,
    text: &'a str,
}

impl Conversation<'_> {
    fn assistant_turns(&self) -> impl Iterator<Item = usize> {
        (0..self.messages.len()).filter(|turn| is_assistant(&self.messages[*turn]))
    }

    /// Byte ranges of the assistant's contents, and where the mark at their
    /// end had to stand.
    fn contents(&self) -> Option<(Vec<Range<usize>>, Edge)> {
        Placement::candidates(self.messages).iter().find_map(|placement| {
            let marked = self.marked(self.messages.len(), *placement).ok()?;
            if marked.text != self.text || marked.closes.len() != self.assistant_turns().count() {
                return None;
            }
            let contents = match placement.open {
                Some(_) => marked.spans()?,
                None => self.behind_generation_prompts(&marked.closes)?,
            };
            Some((contents, placement.close))
        })
    }

    /// The first `n_messages` with marks around what the assistant says.
    fn marked(
        &self,
        n_messages: usize,
        placement: Placement,
    ) -> Result<marks::Marked, RejectReason> {
        let messages: Vec<Message> = self.messages[..n_messages]
            .iter()
            .map(|message| {
                if is_assistant(message) {
                    self.marks.put(message, placement)
                } else {
                    message.clone()
                }
            })
            .collect();
        Ok(self.marks.take_out(&self.template.render(&messages)?))
    }

    /// Contents that end at `ends` and begin where their generation prompts do
    /// so.
    fn behind_generation_prompts(&self, ends: &[usize]) -> Option<Vec<Range<usize>>> {
        let mut last_end = 0;
        self.assistant_turns()
            .zip(ends)
            .map(|(turn, &end)| {
                let prompt = self.template.render_prompt(&self.messages[..turn]).ok()?;
                let start = prompt.len();
                let fits = self.text.starts_with(&prompt) && last_end <= start && start <= end;
                last_end = end;
                fits.then_some(start..end)
            })
            .collect()
    }

    /// What the template writes after the content of `turn`, which ends at
    /// byte `end`, to close it.
    fn end_of_turn(&self, turn: usize, end: usize, close: Edge) -> Result<&str, RejectReason> {
        let after = &self.text[end..];
        if turn + 1 == self.messages.len() {
            return Ok(after);
        }
        let placement = Placement { open: None, close };
        let cut = self.marked(turn + 1, placement)?;
        let closing = cut.closes.last().map_or("", |end| &cut.text[*end..]);
        Ok(common_prefix(after, closing))
    }
}

fn common_prefix<'a>(a: &'a str, b: &str) -> &'a str {
    let equal = a.char_indices().zip(b.chars()).take_while(|((_, a), b)| a == b);
    &a[..equal.last().map_or(0, |((start, char), _)| start + char.len_utf8())]
}

#[cfg(test)]
mod tests;
