//! How the page and the terminal write numbers.

/// What stands for a number that is not defined.
const NONE: &str = "–";

/// A count with separators: `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in `[0, 1]` as percent: `5.0%`, and `<0.1%` for what is not nothing.
pub(crate) fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.0005 {
        "<0.1%".to_owned()
    } else {
        format!("{:.1}%", 100.0 * share)
    }
}

/// A score or a rate: `0.3012`, and `−2.10e-5` where four decimals say little.
pub(crate) fn score(score: f64) -> String {
    if score == 0.0 || score.abs() >= 1e-3 {
        minus(format!("{score:.4}"))
    } else {
        minus(format!("{score:.2e}"))
    }
}

/// A number to `places` decimals, with the minus sign of print.
pub(crate) fn fixed(value: Option<f64>, places: usize) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| minus(format!("{value:.places$}")))
}

/// A correlation, its sign always written: `+0.31`.
pub(crate) fn signed(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| minus(format!("{value:+.2}")))
}

/// How many times more often a source is in the subset than in the pool: `4.2×`.
pub(crate) fn lift(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.1}×"))
}

/// A time: `0.4 s`, `42 s`, `3 min 05 s`, `2 h 10 min`.
pub(crate) fn seconds(seconds: f64) -> String {
    #[expect(clippy::cast_sign_loss, reason = "a duration; what is not a number becomes zero")]
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

fn minus(text: String) -> String {
    match text.strip_prefix('-') {
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([count(0), count(999), count(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([percent(0.05), percent(0.0), percent(1e-5)], ["5.0%", "0.0%", "<0.1%"]);
        assert_eq!(
            [score(0.301_24), score(-0.5), score(-2.1e-5)],
            ["0.3012", "−0.5000", "−2.10e-5"]
        );
        assert_eq!(
            [signed(Some(0.314)), signed(Some(-0.5)), signed(None)],
            ["+0.31", "−0.50", "–"]
        );
        assert_eq!([lift(Some(4.24)), lift(None)], ["4.2×", "–"]);
        assert_eq!([fixed(Some(-1.05), 1), fixed(None, 3)], ["−1.1", "–"]);
    }

    #[test]
    fn times_have_two_units_at_most() {
        let texts = [0.44, 9.97, 42.4, 185.0, 7_805.0].map(seconds);
        assert_eq!(texts, ["0.4 s", "10 s", "42 s", "3 min 05 s", "2 h 10 min"]);
    }
}
