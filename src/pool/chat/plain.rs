//! Conversations without a chat template.

use super::{MAX_TURNS, Rendered};
use crate::pool::reject::RejectReason;
use crate::pool::{Conversation, LossTurns};

/// What was said, one turn after the other and nothing between, and `eos` behind
/// it: a prompt and its completion, or a text.
pub(in crate::pool) fn plain(
    conversation: &Conversation,
    eos: &str,
    loss: LossTurns,
) -> Result<Rendered, RejectReason> {
    let turns = &conversation.turns;
    if turns.len() > MAX_TURNS {
        return Err(RejectReason::TooManyTurns { n_turns: turns.len(), max_turns: MAX_TURNS });
    }
    let (mut text, mut supervised) = (String::new(), Vec::new());
    for (turn_idx, turn) in turns.iter().enumerate() {
        let start = text.len();
        text.push_str(turn.content());
        if turn_idx + 1 == turns.len() {
            text.push_str(eos);
        }
        if turn.is_assistant() || loss == LossTurns::All {
            supervised.push(start..text.len());
        }
    }
    if supervised.is_empty() {
        return Err(RejectReason::NoAssistant);
    }
    if loss == LossTurns::LastAssistant {
        supervised.drain(..supervised.len() - 1);
    }
    Ok(Rendered { text, supervised })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Turn;

    #[test]
    fn a_prompt_is_followed_by_its_completion() {
        let turns = [("user", "2+2="), ("assistant", "4"), ("user", ", 3+3="), ("assistant", "6")];
        let turns = turns.iter().map(|(role, content)| Turn::new(role, content)).collect();
        let conversation = Conversation { turns, ..Conversation::default() };
        let spans = |loss| plain(&conversation, "<eos>", loss).unwrap().supervised;
        assert_eq!(
            plain(&conversation, "<eos>", LossTurns::All).unwrap().text,
            "2+2=4, 3+3=6<eos>"
        );
        assert_eq!(spans(LossTurns::Assistant), [4..5, 11..17]);
        assert_eq!(spans(LossTurns::LastAssistant), std::slice::from_ref(&(11..17)));
        assert_eq!(spans(LossTurns::All), [0..4, 4..5, 5..11, 11..17]);
    }
}
