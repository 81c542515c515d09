//! Explanations in a terminal.

use std::fmt::Write as _;

use super::{
    Lists, Place, RowExplained, RowNeighbor, Served, Standing, TargetExplained, TargetNeighbor,
};
use crate::pool::Message;
use crate::report::numbers::{count, fixed, score};
use crate::report::quote::{fit, one_line};
use crate::report::table::table;

/// Columns of a name at most.
const NAME_WIDTH: usize = 40;

/// Columns of a quoted turn.
const QUOTE_WIDTH: usize = 72;

/// Turns of a conversation that are quoted, from the first.
const N_TURNS: usize = 6;

/// Subtasks in the table at most.
const N_SUBTASKS: usize = 12;

/// Characters of a name or a reason that are told.
const LINE_CHARS: usize = 400;

/// What there is to say of a row of the pool, ending in a newline.
pub fn row_text(row: &RowExplained) -> String {
    let source = one_line(&row.source, LINE_CHARS);
    let mut text = heading("Row", &format!("{} of {source}", row.id), &row.file, row.line);
    let mut facts = vec![tokens(row.n_tokens, row.n_supervised)];
    if row.truncated {
        facts.push("cut off at the end".to_owned());
    }
    facts.extend(row.loss.map(|loss| format!("loss {}", fixed(Some(loss.into()), 2))));
    facts.extend(row.norm.map(|norm| format!("norm {}", fixed(Some(norm.into()), 2))));
    let _ = writeln!(text, "        {}", facts.join(", "));
    conversation(&mut text, &row.messages);
    let _ = writeln!(text, "\nPlace   {}", place(row));
    subtasks(&mut text, row);
    if !row.nearest_targets.is_empty() {
        text.push_str("\nNearest target examples\n");
        for TargetNeighbor { id, subtask, cosine, prompt, answer } in &row.nearest_targets {
            let head = format!("{}  {}", short(&id.to_string()), one_line(subtask, LINE_CHARS));
            neighbor(&mut text, *cosine, &head, prompt, answer);
        }
    }
    rows(&mut text, "Nearest selected rows", &row.nearest_selected);
    text
}

/// What there is to say of an example of the target, ending in a newline.
pub fn target_text(target: &TargetExplained) -> String {
    let subtasks: Vec<_> = target.subtasks.iter().map(|name| one_line(name, LINE_CHARS)).collect();
    let who = format!("{} of {}", target.id, subtasks.join(", "));
    let mut text = heading("Target", &who, &target.file, target.line);
    let _ = writeln!(text, "        {}", tokens(target.n_tokens, target.n_supervised));
    conversation(&mut text, &target.messages);
    let Some(served) = &target.served else {
        text.push_str(
            "\nThere are no cosines with it: the method has none, or its gradient is of no use.\n",
        );
        return text;
    };
    let Served { n_taken, n_nearest, n_selected, mean_selected, mean_pool, .. } = served;
    text.push_str("\nServed  ");
    if let Some(n_taken) = n_taken {
        let n_taken = count(*n_taken as u64);
        let _ = write!(text, "by {n_taken} rows that were taken for it, and\n        ");
    }
    let _ = writeln!(
        text,
        "by {} of {} selected rows, which are more like it than like any other example\n        \
         mean cosine {} with the selected rows, {} with the pool",
        count(*n_nearest as u64),
        count(*n_selected as u64),
        score(*mean_selected),
        score(*mean_pool),
    );
    rows(&mut text, "Nearest selected rows", &served.nearest_selected);
    rows(&mut text, "Nearest of the others", &served.nearest_left_out);
    text
}

fn heading(what: &str, who: &str, file: &str, line: u64) -> String {
    format!("{what:<6}  {who}\n        {}:{line}\n", one_line(file, LINE_CHARS))
}

fn tokens(n_tokens: u32, n_supervised: u32) -> String {
    format!("{} of {} tokens supervised", count(n_supervised.into()), count(n_tokens.into()))
}

fn conversation(text: &mut String, messages: &[Message]) {
    text.push('\n');
    for Message { role, content } in messages.iter().take(N_TURNS) {
        let role = fit(&one_line(role, LINE_CHARS), 10);
        let content = fit(&one_line(content, LINE_CHARS), QUOTE_WIDTH);
        let _ = writeln!(text, "        {role:<10} {content}");
    }
    if let Some(n_more @ 1..) = messages.len().checked_sub(N_TURNS) {
        let _ = writeln!(text, "        and {n_more} more");
    }
}

fn place(row: &RowExplained) -> String {
    match (&row.place, &row.standing) {
        (Place::LeftOut { reason, near_duplicate_of }, _) => {
            let kept = near_duplicate_of.map_or_else(String::new, |kept| format!(", {kept}"));
            format!("not selected: {}{kept}", one_line(reason, LINE_CHARS))
        }
        (_, Some(standing)) => place_in_lists(row, standing),
        (_, None) => place_by_score(row),
    }
}

/// Where rows are taken by score.
fn place_by_score(row: &RowExplained) -> String {
    let n_selected = count(row.n_selected as u64);
    match &row.place {
        Place::Selected { rank, rank_by_score: Some(by_score) } if by_score != rank => {
            format!("selected, number {} of {n_selected}; {}", count(*rank as u64), ranked(row))
        }
        Place::Selected { rank, .. } => {
            let n_ranked = count(row.n_ranked as u64);
            let rank = count(*rank as u64);
            format!("selected, number {rank} of {n_selected}; {n_ranked} were ranked")
        }
        Place::NotTaken { is_source_capped, .. } => format!(
            "not selected, though {}, above that of rows that were: {}",
            ranked(row),
            decided(*is_source_capped)
        ),
        Place::BelowCut { .. } | Place::LeftOut { .. } => {
            let cut = row.cut.map_or_else(|| "–".to_owned(), |cut| score(cut.into()));
            format!(
                "not selected: {}, {n_selected} were selected, the lowest with {cut}",
                ranked(row)
            )
        }
    }
}

/// Where target examples take the rows that are nearest to them.
fn place_in_lists(row: &RowExplained, standing: &Standing) -> String {
    let place = match &row.place {
        Place::Selected { rank, .. } => {
            let n_selected = count(row.n_selected as u64);
            format!("selected, number {} of {n_selected}", count(*rank as u64))
        }
        Place::NotTaken { is_source_capped, .. } => {
            format!("not selected, {}", decided(*is_source_capped))
        }
        Place::BelowCut { .. } | Place::LeftOut { .. } => "not selected".to_owned(),
    };
    format!("{place}: {}; {}", stands(standing), ranked(row))
}

/// A row's place by score.
fn ranked(row: &RowExplained) -> String {
    let rank = match &row.place {
        Place::Selected { rank_by_score, .. } => *rank_by_score,
        Place::BelowCut { rank } | Place::NotTaken { rank, .. } => Some(*rank),
        Place::LeftOut { .. } => None,
    };
    let rank = rank.map_or_else(|| "–".to_owned(), |rank| count(rank as u64));
    format!("its score is number {rank} of {}", count(row.n_ranked as u64))
}

/// What kept a row out that stood before others.
fn decided(is_source_capped: bool) -> &'static str {
    if is_source_capped {
        "its source's cap decided"
    } else {
        "likeness to rows that were taken decided, or what other sources were to have"
    }
}

/// Where a row stands among those nearest to a target example.
fn stands(Standing { example, subtask, place, taken_to, lists }: &Standing) -> String {
    let number = |n: usize| count(n as u64);
    let example = format!("{} ({})", short(&example.to_string()), one_line(subtask, LINE_CHARS));
    match (lists, taken_to) {
        (Some(Lists { n_in, n, length }), _) => format!(
            "among the {} nearest rows of {} of the target's {} examples,\n        \
             number {} of those nearest to {example}",
            number(*length),
            number(*n_in),
            number(*n),
            number(*place)
        ),
        (None, Some(last)) => format!(
            "number {} of the rows nearest to {example},\n        \
             whose turns took rows down to number {}",
            number(*place),
            number(*last)
        ),
        (None, None) => format!(
            "number {} of the rows nearest to {example},\n        \
             whose turns took none",
            number(*place)
        ),
    }
}

fn subtasks(text: &mut String, row: &RowExplained) {
    if row.subtasks.is_empty() {
        return;
    }
    let mut head = vec!["Subtask".to_owned(), "score".to_owned()];
    // One checkpoint says what the score says.
    let by_checkpoint = row.checkpoints.len() > 1;
    if by_checkpoint {
        head.extend(row.checkpoints.iter().map(|checkpoint| {
            let weight = 100.0 * checkpoint.weight;
            format!("{} ({weight:.0}%)", one_line(&checkpoint.name, LINE_CHARS))
        }));
    }
    let mut lines = vec![head];
    for subtask in row.subtasks.iter().take(N_SUBTASKS) {
        let name = fit(&one_line(&subtask.subtask, LINE_CHARS), NAME_WIDTH);
        let mut line = vec![name, score(subtask.score.into())];
        if by_checkpoint {
            line.extend(subtask.by_checkpoint.iter().map(|mean| score(*mean)));
            line.resize(2 + row.checkpoints.len(), "–".to_owned());
        }
        lines.push(line);
    }
    text.push('\n');
    table(text, &lines);
    if let Some(n_more @ 1..) = row.subtasks.len().checked_sub(N_SUBTASKS) {
        let _ = writeln!(text, "and {n_more} more");
    }
}

fn rows(text: &mut String, title: &str, neighbors: &[RowNeighbor]) {
    if neighbors.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for RowNeighbor { id, source, cosine, rank, prompt, answer } in neighbors {
        let rank = rank.map_or_else(String::new, |rank| format!(", number {}", count(rank as u64)));
        let source = one_line(source, LINE_CHARS);
        let head = format!("{}  {source}{rank}", short(&id.to_string()));
        neighbor(text, *cosine, &head, prompt, answer);
    }
}

fn neighbor(text: &mut String, cosine: f32, head: &str, prompt: &str, answer: &str) {
    let quote = |words: &str, width| fit(&one_line(words, LINE_CHARS), width);
    let _ = writeln!(text, "{:>8}  {head}", score(cosine.into()));
    let _ = writeln!(text, "          {}", quote(prompt, QUOTE_WIDTH));
    let _ = writeln!(text, "          → {}", quote(answer, QUOTE_WIDTH - 2));
}

/// Enough of an id to ask for it.
fn short(id: &str) -> &str {
    &id[..12]
}
