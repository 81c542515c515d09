//! A verification as a table in a terminal.

use std::fmt::Write;

use super::comparison::{Comparison, Estimate};

/// The tables of all evaluations.
pub fn text(comparisons: &[Comparison]) -> String {
    let tables: String = comparisons.iter().map(|comparison| table(comparison) + "\n").collect();
    let reference = comparisons.iter().find_map(|comparison| comparison.reference.as_ref());
    let mark = reference.map_or_else(String::new, |name| {
        format!("; * marks a difference from {name} that is not noise")
    });
    format!("{tables}± is half of a 95 % interval{mark}\n")
}

fn table(comparison: &Comparison) -> String {
    let Comparison { eval, n_examples, reference, standings } = comparison;
    let wide = standings.iter().map(|standing| standing.contender.len()).max().unwrap_or(0);
    let wide = wide.max("contender".len());
    let against = reference.as_ref().map_or_else(String::new, |name| format!("against {name}"));
    let mut text = format!("{eval}, {n_examples} examples\n");
    let mut line = |cells: [&str; 7]| {
        let [name, trials, tokens, loss, difference, exact, f1] = cells;
        let line = format!(
            "  {name:<wide$}  {trials:>6}  {tokens:>9}  {loss:>13}  {difference:>16}  {exact:>16}  {f1:>16}"
        );
        writeln!(text, "{}", line.trim_end()).expect("a string takes all");
    };
    let has_answers = standings.iter().any(|standing| standing.f1.is_some());
    let f1 = if has_answers { "F1" } else { "" };
    line(["contender", "trials", "tokens", "loss a token", &against, "exact", f1]);
    for standing in standings {
        let difference = standing.loss_difference.as_ref().map_or_else(String::new, signed);
        line([
            &standing.contender,
            &standing.n_trials.to_string(),
            &format!("{:.0}", standing.n_tokens),
            &number(&standing.loss, 3),
            &difference,
            &percent(&standing.exact, standing.exact_difference.as_ref()),
            &standing
                .f1
                .as_ref()
                .map_or_else(String::new, |f1| percent(f1, standing.f1_difference.as_ref())),
        ]);
    }
    text
}

fn number(estimate: &Estimate, places: usize) -> String {
    format!("{:.places$} ± {:.places$}", estimate.mean, estimate.half_width)
}

fn signed(estimate: &Estimate) -> String {
    format!("{:+.3} ± {:.3}{}", estimate.mean, estimate.half_width, mark(Some(estimate)))
}

/// A share, marked by its difference to the reference's.
fn percent(estimate: &Estimate, difference: Option<&Estimate>) -> String {
    let [mean, half_width] = [estimate.mean, estimate.half_width].map(|share| 100.0 * share);
    format!("{mean:.1} ± {half_width:.1} %{}", mark(difference))
}

/// What zero is not in is marked.
fn mark(difference: Option<&Estimate>) -> &'static str {
    match difference {
        Some(Estimate { mean, half_width }) if mean.abs() > *half_width => " *",
        _ => "  ",
    }
}

#[cfg(test)]
mod tests {
    use super::super::comparison::Standing;
    use super::*;

    #[test]
    fn a_table_has_the_best_first_and_marks_what_differs() {
        let estimate = |mean, half_width| Estimate { mean, half_width };
        let standing =
            |contender: &str, loss, [difference, exact, f1]: [Option<Estimate>; 3]| Standing {
                contender: contender.to_owned(),
                n_trials: 3,
                n_rows: 40.0,
                n_tokens: 12345.0,
                loss: estimate(loss, 0.021),
                exact: estimate(0.125, 0.03),
                f1: Some(estimate(0.425, 0.041)),
                loss_difference: difference,
                exact_difference: exact,
                f1_difference: f1,
            };
        let comparison = |standings| Comparison {
            eval: "gsm8k".to_owned(),
            n_examples: 200,
            reference: Some("random".to_owned()),
            standings,
        };
        let [clear, noise] = [0.061, 0.013].map(|mean| Some(estimate(-mean, 0.018)));
        let standings = vec![
            standing("less", 1.262, [clear, noise, clear]),
            standing("length", 1.31, [noise, clear, noise]),
            standing("random", 1.323, [None; 3]),
        ];
        insta::assert_snapshot!(text(&[comparison(standings)]), @r"
        gsm8k, 200 examples
          contender  trials     tokens   loss a token    against random             exact                F1
          less            3      12345  1.262 ± 0.021  -0.061 ± 0.018 *    12.5 ± 3.0 %      42.5 ± 4.1 % *
          length          3      12345  1.310 ± 0.021  -0.013 ± 0.018      12.5 ± 3.0 % *    42.5 ± 4.1 %
          random          3      12345  1.323 ± 0.021                      12.5 ± 3.0 %      42.5 ± 4.1 %

        ± is half of a 95 % interval; * marks a difference from random that is not noise
        ");
        let standing =
            Standing { f1: None, f1_difference: None, ..standing("less", 1.262, [clear; 3]) };
        insta::assert_snapshot!(text(&[comparison(vec![standing])]), @r"
        gsm8k, 200 examples
          contender  trials     tokens   loss a token    against random             exact
          less            3      12345  1.262 ± 0.021  -0.061 ± 0.018 *    12.5 ± 3.0 % *

        ± is half of a 95 % interval; * marks a difference from random that is not noise
        ");
    }
}
