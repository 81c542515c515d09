//! What the assistant says in a rendering of a template that does not tell.

use std::cmp::Reverse;
use std::ops::Range;

use super::marks::{Edge, Marked, Marks, Placement};
use super::template::ChatTemplate;
use crate::pool::reject::RejectReason;
use crate::pool::{Conversation, Turn};

/// A conversation and its plain rendering.
pub(super) struct Speech<'a> {
    pub(super) template: &'a ChatTemplate,
    /// The texts of the tokenizer's special tokens.
    pub(super) special_tokens: &'a [String],
    pub(super) conversation: &'a Conversation,
    /// Characters that the conversation does not contain.
    pub(super) marks: Marks,
    pub(super) text: &'a str,
}

impl Speech<'_> {
    /// Byte ranges of the assistant's turns, one each, in order.
    pub(super) fn spans(&self) -> Result<Vec<Range<usize>>, RejectReason> {
        // Where marks do not tell, no plain turn has a content of its own.
        let (contents, close) = self.contents().unwrap_or((Vec::new(), Edge::Outer));
        let mut contents = contents.into_iter();
        let mut spans = Vec::new();
        let mut last_end = 0;
        for turn in self.assistant_turns() {
            let content = if self.turns()[turn].says_more() { None } else { contents.next() };
            let span = match content {
                Some(content) => self.through_its_end(turn, content, close)?,
                None => self.whole_turn(turn, last_end).ok_or(RejectReason::Rewritten)?,
            };
            if span.start < last_end {
                return Err(RejectReason::Rewritten);
            }
            last_end = span.end;
            spans.push(span);
        }
        Ok(spans)
    }

    fn turns(&self) -> &[Turn] {
        &self.conversation.turns
    }

    fn assistant_turns(&self) -> impl Iterator<Item = usize> {
        (0..self.turns().len()).filter(|turn| self.turns()[*turn].is_assistant())
    }

    /// The assistant's turns that are nothing but content.
    fn plain_turns(&self) -> impl Iterator<Item = usize> {
        self.assistant_turns().filter(|turn| !self.turns()[*turn].says_more())
    }

    /// Byte ranges of the contents of plain turns, and where the mark at their
    /// end had to stand.
    fn contents(&self) -> Option<(Vec<Range<usize>>, Edge)> {
        Placement::candidates(self.turns()).iter().find_map(|placement| {
            let turns: Vec<_> =
                (0..self.turns().len()).map(|turn| self.marked(turn, *placement)).collect();
            let marked = self.rendered(&turns).ok()?;
            if marked.text != self.text || marked.closes.len() != self.plain_turns().count() {
                return None;
            }
            let contents = match placement.open {
                Some(_) => marked.spans()?,
                None => self.behind_generation_prompts(&marked.closes)?,
            };
            Some((contents, placement.close))
        })
    }

    /// A turn with marks around its content, if it is a plain one.
    fn marked(&self, turn: usize, placement: Placement) -> Turn {
        let turn = &self.turns()[turn];
        if turn.is_assistant() && !turn.says_more() {
            self.marks.put(turn, placement)
        } else {
            turn.clone()
        }
    }

    /// A rendering of `turns` without the marks in it.
    fn rendered(&self, turns: &[Turn]) -> Result<Marked, RejectReason> {
        let text = self.template.render(turns, &self.conversation.variables)?;
        Ok(self.marks.take_out(&text))
    }

    /// The turns before `turn`, as text that ends where its answer would begin.
    fn generation_prompt(&self, turn: usize) -> Option<String> {
        self.template.render_prompt(&self.turns()[..turn], &self.conversation.variables).ok()
    }

    /// Contents that end at `ends` and begin where their generation prompts do
    /// so.
    fn behind_generation_prompts(&self, ends: &[usize]) -> Option<Vec<Range<usize>>> {
        let mut last_end = 0;
        self.plain_turns()
            .zip(ends)
            .map(|(turn, &end)| {
                let prompt = self.generation_prompt(turn)?;
                let start = prompt.len();
                let fits = self.text.starts_with(&prompt) && last_end <= start && start <= end;
                last_end = end;
                fits.then_some(start..end)
            })
            .collect()
    }

    /// All that is written for `turn`, through its end: what differs where a lone
    /// mark is said in its place.
    ///
    /// The conversation that stops there is asked first, for templates write what
    /// tools answered into the turn that called them, too. Where the template
    /// writes it differently when the conversation goes on, the whole is asked;
    /// where that is refused (an answer of a tool that nobody called), what was
    /// found must occur once.
    fn whole_turn(&self, turn: usize, last_end: usize) -> Option<Range<usize>> {
        let cut = self.turns()[..=turn].to_vec();
        let cut_text = self.template.render(&cut, &self.conversation.variables).ok()?;
        let in_cut = self.lone_difference(&cut_text, turn, cut);
        if let Some(said) = &in_cut
            && self.text.starts_with(&cut_text[..said.end])
        {
            return Some(self.through_end_of_turn(said.clone(), &cut_text[said.end..]));
        }
        if let Some(said) = self.lone_difference(self.text, turn, self.turns().to_vec()) {
            return self.through_its_end(turn, said, Edge::Outer).ok();
        }
        let said = in_cut?;
        let words = &cut_text[said.clone()];
        let mut places = self.text[last_end..].match_indices(words).map(|(at, _)| last_end + at);
        let (Some(start), None) = (places.next(), places.next()) else { return None };
        (!words.is_empty())
            .then(|| self.through_end_of_turn(start..start + words.len(), &cut_text[said.end..]))
    }

    /// What of `text`, the rendering of `turns`, is written for `turn`.
    fn lone_difference(
        &self,
        text: &str,
        turn: usize,
        mut turns: Vec<Turn>,
    ) -> Option<Range<usize>> {
        turns[turn] = self.lone_mark();
        let bare = self.rendered(&turns).ok()?;
        let [mark] = bare.closes[..] else { return None };
        let (before, behind) = bare.text.split_at(mark);
        let start = self.start_of_turn(turn, text, before)?;
        let end = text.len() - common_suffix(&text[start..], behind).len();
        Some(
            start..self.special_token_around(text, end).map_or(end, |token| token.start).max(start),
        )
    }

    /// Where `turn` begins in `text`, of which `before` is what is written before
    /// a mark in its place: where its generation prompt ends, if the template has
    /// one and the text begins with it.
    fn start_of_turn(&self, turn: usize, text: &str, before: &str) -> Option<usize> {
        let shared = common_prefix(text, before).len();
        let shared = self.special_token_around(text, shared).map_or(shared, |token| token.start);
        let earlier = &self.turns()[..turn];
        let earlier = self.template.render(earlier, &self.conversation.variables).ok()?;
        match self.generation_prompt(turn) {
            // Equal, it is none, or stands there without being asked for.
            Some(prompt) if prompt != earlier && text.starts_with(&prompt) => Some(prompt.len()),
            _ if shared == before.len() => Some(shared),
            // Something else differs, too: it must be of this turn.
            _ if text.starts_with(&earlier) => Some(shared.min(earlier.len())),
            _ => (shared >= earlier.trim_end().len()).then_some(shared),
        }
    }

    /// The special token of `text` that byte `at` lies within.
    fn special_token_around(&self, text: &str, at: usize) -> Option<Range<usize>> {
        let around = |token: &String| {
            let from = text.floor_char_boundary(at.saturating_sub(token.len()));
            let tokens = text[from..].match_indices(token.as_str());
            let mut tokens = tokens.map(|(start, token)| from + start..from + start + token.len());
            tokens.find(|token| token.end > at).filter(|token| token.start < at)
        };
        self.special_tokens.iter().filter_map(around).min_by_key(|token| token.start)
    }

    fn lone_mark(&self) -> Turn {
        Turn::new("assistant", self.marks.close.encode_utf8(&mut [0; 4]))
    }

    /// `said`, the words of `turn`, and what the template writes after them when
    /// the conversation stops there.
    fn through_its_end(
        &self,
        turn: usize,
        said: Range<usize>,
        close: Edge,
    ) -> Result<Range<usize>, RejectReason> {
        if turn + 1 == self.turns().len() {
            let closing = &self.text[said.end..];
            return Ok(self.through_end_of_turn(said, closing));
        }
        let mut turns = self.turns()[..=turn].to_vec();
        turns[turn] = if turns[turn].says_more() {
            self.lone_mark()
        } else {
            self.marked(turn, Placement { open: None, close })
        };
        let cut = self.rendered(&turns)?;
        let closing = cut.closes.last().map_or("", |end| &cut.text[*end..]);
        Ok(self.through_end_of_turn(said, closing))
    }

    /// `said` and what ends the turn behind it: of the text that follows as much
    /// as `closing`, what the template writes when the conversation stops there,
    /// has too. Another special token in place of that one ends it as well.
    fn through_end_of_turn(&self, said: Range<usize>, closing: &str) -> Range<usize> {
        let after = &self.text[said.end..];
        let shared = common_prefix(after, closing).len();
        let tail = self.special_token_around(after, shared).map_or(shared, |token| token.end);
        said.start..said.end + closing_bytes(&after[..tail], self.special_tokens)
    }
}

/// How much of `tail`, the text after an assistant's words, belongs to them:
/// through its first special token and those that follow it at once.
pub(super) fn closing_bytes(tail: &str, special_tokens: &[String]) -> usize {
    let first_token = |text: &str| {
        let found = special_tokens
            .iter()
            .filter_map(|token| Some((text.find(token.as_str())?, Reverse(token.len()))));
        found.min().map(|(start, Reverse(n_bytes))| start..start + n_bytes)
    };
    let Some(mut closing) = first_token(tail) else { return tail.trim_end().len() };
    while let Some(next) = first_token(&tail[closing.end..]).filter(|next| next.start == 0) {
        closing.end += next.end;
    }
    closing.end
}

fn common_prefix<'a>(a: &'a str, b: &str) -> &'a str {
    let equal = a.char_indices().zip(b.chars()).take_while(|((_, a), b)| a == b);
    &a[..equal.last().map_or(0, |((start, char), _)| start + char.len_utf8())]
}

fn common_suffix<'a>(a: &'a str, b: &str) -> &'a str {
    let equal = a.char_indices().rev().zip(b.chars().rev()).take_while(|((_, a), b)| a == b);
    &a[equal.last().map_or(a.len(), |((start, _), _)| start)..]
}
