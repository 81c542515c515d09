//! A cell of the table of subtasks and sources.

use super::numbers::{count, score};

/// A `td` whose color is as strong as its mean is of the `largest`, in one color above
/// zero and another below.
pub(super) fn cell(n_ranked: u64, mean: Option<f64>, n_selected: u64, largest: f64) -> String {
    let Some(mean) = mean else { return "<td class=\"empty\">–</td>".to_owned() };
    let heat = (mean / largest.max(f64::MIN_POSITIVE)).abs().min(1.0);
    let sign = if mean < 0.0 { "cold" } else { "hot" };
    let dot = if n_selected > 0 { "<i aria-hidden=\"true\"></i>" } else { "" };
    format!(
        "<td class=\"{sign}\" style=\"--heat: {:.1}%\" title=\"mean influence {} of {} ranked, \
         {} selected\">{}{dot}</td>",
        100.0 * heat,
        score(mean),
        count(n_ranked),
        count(n_selected),
        short(mean),
    )
}

/// A mean in little room: `.052`, `−.31`.
fn short(mean: f64) -> String {
    let size = format!("{:.3}", mean.abs());
    let sign = if mean < 0.0 && size.bytes().any(|digit| digit.is_ascii_digit() && digit != b'0') {
        "−"
    } else {
        ""
    };
    format!("{sign}{}", size.strip_prefix('0').unwrap_or(&size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mean_fills_its_cell() {
        insta::assert_snapshot!(cell(120, Some(0.25), 3, 0.25), @r#"<td class="hot" style="--heat: 100.0%" title="mean influence 0.2500 of 120 ranked, 3 selected">.250<i aria-hidden="true"></i></td>"#);
        insta::assert_snapshot!(cell(1, Some(-0.05), 0, 0.25), @r#"<td class="cold" style="--heat: 20.0%" title="mean influence −0.0500 of 1 ranked, 0 selected">−.050</td>"#);
        insta::assert_snapshot!(cell(0, None, 0, 0.25), @r#"<td class="empty">–</td>"#);
    }

    #[test]
    fn small_means_are_short() {
        assert_eq!(
            [short(0.0521), short(-0.3), short(-0.0001), short(1.5)],
            [".052", "−.300", ".000", "1.500"]
        );
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        assert!(cell(4, Some(0.0), 0, 0.0).contains("--heat: 0.0%"));
    }
}
