//! Conversations as text, and which of it carries loss.
//!
//! [`ChatTemplate`] renders a conversation as Python's `transformers` does.
//! What the assistant says is found by asking the template, never by looking
//! for prefixes in its output:
//!
//! - A template with `{% generation %}` blocks says it itself.
//! - For any other, every assistant turn's content is rendered between two
//!   characters that occur nowhere else. Taken out again, they must leave the
//!   plain rendering; then they stood where the content begins and ends. A
//!   template that trims content swallows the blanks inside the marks, so the
//!   marks are tried outside and inside of them. One that rewrites the
//!   beginning (it drops a thought, say) is asked with a mark at the end only:
//!   the turn then begins where its generation prompt ends.
//! - A turn that calls tools, or has its thoughts in a field of their own, is
//!   what changes when a lone mark is said in its place.
//! - The end of turn is what the template writes after all that when the
//!   conversation stops there, through its first special token
//!   (`<|im_end|>` but not the line end behind it). Without a special token it
//!   is that text without trailing blanks.
//!
//! Of what the assistant says [`LossTurns`] takes its part.

mod generation;
mod json;
mod marks;
mod plain;
mod python;
mod speech;
mod template;

use std::ops::Range;

use marks::Marks;
pub(super) use plain::plain;
use speech::Speech;
pub(super) use template::ChatTemplate;

use super::reject::RejectReason;
use super::{Conversation, LossTurns, Turn};

/// Most turns of a conversation. Where every turn ends is found by rendering
/// those up to it, so the time goes with the square.
const MAX_TURNS: usize = 1024;

/// A conversation as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    /// What the model reads.
    pub(super) text: String,
    /// Byte ranges of what carries loss, in order; an assistant's turn through
    /// its end.
    pub(super) supervised: Vec<Range<usize>>,
}

/// Renders `conversation` and finds what in it carries loss.
///
/// `special_tokens` are the texts of the tokenizer's special tokens.
pub(super) fn render(
    template: &ChatTemplate,
    special_tokens: &[String],
    conversation: &Conversation,
    loss: LossTurns,
) -> Result<Rendered, RejectReason> {
    let Conversation { turns, variables } = conversation;
    if turns.len() > MAX_TURNS {
        return Err(RejectReason::TooManyTurns { n_turns: turns.len(), max_turns: MAX_TURNS });
    }
    if loss == LossTurns::All {
        let text = template.render(turns, variables)?;
        let everything = 0..text.len();
        return Ok(Rendered { text, supervised: vec![everything] });
    }
    let Some(last) = turns.iter().rposition(Turn::is_assistant) else {
        return Err(RejectReason::NoAssistant);
    };
    let marks = Marks::unused_in(conversation).ok_or(RejectReason::Rewritten)?;
    let (rendered, n_earlier) = if template.has_generation() {
        let rendered = generated(template, conversation, turns.len(), marks)?;
        let n_earlier = match loss {
            LossTurns::LastAssistant if rendered.supervised.len() > 1 => {
                generated(template, conversation, last, marks)?.supervised.len()
            }
            _ => 0,
        };
        (rendered, n_earlier)
    } else {
        let text = template.render(turns, variables)?;
        let speech = Speech { template, special_tokens, conversation, marks, text: &text };
        let supervised = speech.spans()?;
        let n_earlier = supervised.len() - 1;
        (Rendered { text, supervised }, n_earlier)
    };
    Ok(match loss {
        LossTurns::LastAssistant => {
            let supervised = rendered.supervised.into_iter().skip(n_earlier).collect();
            Rendered { supervised, ..rendered }
        }
        _ => rendered,
    })
}

/// The first `n_turns` with what the template's own blocks say of them.
fn generated(
    template: &ChatTemplate,
    conversation: &Conversation,
    n_turns: usize,
    marks: Marks,
) -> Result<Rendered, RejectReason> {
    let Conversation { turns, variables } = conversation;
    let text = template.render_generation(&turns[..n_turns], variables, marks)?;
    let marked = marks.take_out(&text);
    let supervised = marked.spans().ok_or(RejectReason::Rewritten)?;
    Ok(Rendered { text: marked.text, supervised })
}

#[cfg(test)]
mod goldens;
#[cfg(test)]
mod shipped;
#[cfg(test)]
mod tests;
