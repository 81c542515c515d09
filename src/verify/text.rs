//! A verification as a table in a terminal.

use std::fmt::Write;

use super::comparison::{Comparison, Estimate};

/// The tables of all evaluations.
pub fn text(comparisons: &[Comparison]) -> String {
    let tables: String = comparisons.iter().map(|comparison| table(comparison) + "\n").collect();
    tables + "± is half of a 95 % interval; * marks a difference that is not noise\n"
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
            "  {name:<wide$}  {trials:>6}  {tokens:>9}  {loss:>15}  {difference:>16}  {exact:>14}  {f1:>14}"
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
            &percent(&standing.exact),
            &standing.f1.as_ref().map_or_else(String::new, percent),
        ]);
    }
    text
}

fn number(estimate: &Estimate, places: usize) -> String {
    format!("{:.places$} ± {:.places$}", estimate.mean, estimate.half_width)
}

fn signed(estimate: &Estimate) -> String {
    // What zero is not in is marked.
    let mark = if estimate.mean.abs() > estimate.half_width { " *" } else { "  " };
    format!("{:+.3} ± {:.3}{mark}", estimate.mean, estimate.half_width)
}

fn percent(estimate: &Estimate) -> String {
    format!("{:.1} ± {:.1} %", 100.0 * estimate.mean, 100.0 * estimate.half_width)
}

#[cfg(test)]
mod tests {
    use super::super::comparison::Standing;
    use super::*;

    #[test]
    fn a_table_has_the_best_first_and_marks_what_differs() {
        let estimate = |mean, half_width| Estimate { mean, half_width };
        let standing = |contender: &str, loss, difference| Standing {
            contender: contender.to_owned(),
            n_trials: 3,
            n_rows: 40.0,
            n_tokens: 12345.0,
            loss: estimate(loss, 0.021),
            exact: estimate(0.125, 0.03),
            f1: None,
            loss_difference: difference,
        };
        let comparison = Comparison {
            eval: "gsm8k".to_owned(),
            n_examples: 200,
            reference: Some("random".to_owned()),
            standings: vec![
                standing("less", 1.262, Some(estimate(-0.061, 0.018))),
                standing("length", 1.31, Some(estimate(-0.013, 0.018))),
                standing("random", 1.323, None),
            ],
        };
        insta::assert_snapshot!(text(&[comparison]), @r"
        gsm8k, 200 examples
          contender  trials     tokens     loss a token    against random           exact
          less            3      12345    1.262 ± 0.021  -0.061 ± 0.018 *    12.5 ± 3.0 %
          length          3      12345    1.310 ± 0.021  -0.013 ± 0.018      12.5 ± 3.0 %
          random          3      12345    1.323 ± 0.021                      12.5 ± 3.0 %

        ± is half of a 95 % interval; * marks a difference that is not noise
        ");
    }
}
