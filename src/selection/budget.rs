//! How much of the pool to keep.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much of the pool to keep. No value of this type is wrong: a share is
/// checked when it is made, and nothing counts from zero.
///
/// | text | meaning |
/// |---|---|
/// | `0.05`, `5%` | a share of the pool's examples |
/// | `1.0`, `100%` | every example |
/// | `1`, `2000`, `20k` | that many examples; `1` is one example, not everything |
/// | `2_000_000 tokens`, `1.5M tokens` | examples worth at most that many tokens |
///
/// A number with a point is a share, one without is a count. `k`, `M` and `B`
/// are thousands, millions and billions, in either case. [`Display`](fmt::Display)
/// writes the canonical text, which reads back as the same budget, and serde
/// uses that text too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Budget {
    /// A share of all the pool's examples, those that cannot be ranked included.
    Fraction(Fraction),
    /// A number of examples.
    Examples(NonZeroU64),
    /// A number of tokens, as the model sees them (after truncation).
    Tokens(NonZeroU64),
}

/// A finite fraction in `(0, 1]`. The only way to make one is [`Fraction::new`].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Fraction(f64);

impl Fraction {
    /// `value` if it is in `(0, 1]`.
    pub fn new(value: f64) -> Option<Self> {
        (value > 0.0 && value <= 1.0).then_some(Self(value))
    }

    /// The fraction as a number in `(0, 1]`.
    pub fn value(self) -> f64 {
        self.0
    }

    /// This share of `n` things: rounded down, but never to none of some.
    ///
    /// Decimal fractions mean what they say: 29 % of 100 is 29, although
    /// `0.29 * 100.0` is a hair below.
    pub fn of(self, n: usize) -> usize {
        let exact = self.0 * n as f64;
        let nearest = exact.round();
        // Two roundings went into `exact`: the fraction's own and the product's.
        let is_whole = (exact - nearest).abs() <= 2.0 * f64::EPSILON * exact;
        let whole = if is_whole { nearest } else { exact.floor() };
        #[expect(clippy::cast_sign_loss, reason = "a product of two numbers above zero")]
        let whole = whole as usize;
        whole.max(1).min(n)
    }
}

/// Why a text is not a budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Not of any of the forms.
    #[error(
        "budget `{0}` is neither a share (0.05, 5%), a number of examples (2000) nor a number of tokens (1M tokens)"
    )]
    Malformed(String),
    /// A share of nothing, or of more than everything.
    #[error("budget `{0}` is a share outside (0, 1]; 1.0 or 100% keeps everything")]
    Share(String),
    /// A count of zero.
    #[error("budget `{0}` keeps nothing")]
    Nothing(String),
    /// Half an example or half a token.
    #[error("budget `{0}` is not a whole number")]
    NotWhole(String),
    /// A count past 2⁶⁴.
    #[error("budget `{0}` is more than can be counted")]
    TooLarge(String),
}

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let trimmed = text.trim();
        let tokens = trimmed.strip_suffix("tokens").or_else(|| trimmed.strip_suffix("token"));
        if let Some(amount) = tokens {
            return count(amount, text).map(Self::Tokens);
        }
        if let Some(percent) = trimmed.strip_suffix('%') {
            // The exponent keeps 33.3% the number nearest to 0.333; a division would not.
            return share(percent, "e-2", text).map(Self::Fraction);
        }
        if trimmed.contains('.') && !trimmed.ends_with(|last: char| last.is_ascii_alphabetic()) {
            return share(trimmed, "", text).map(Self::Fraction);
        }
        count(trimmed, text).map(Self::Examples)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Never `1`, which would read back as one example.
            Self::Fraction(Fraction(1.0)) => f.write_str("1.0"),
            Self::Fraction(Fraction(share)) => write!(f, "{share}"),
            Self::Examples(n) => write!(f, "{n}"),
            Self::Tokens(n) => write!(f, "{n} tokens"),
        }
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> Self {
        budget.to_string()
    }
}

impl TryFrom<String> for Budget {
    type Error = BudgetError;

    fn try_from(text: String) -> Result<Self, BudgetError> {
        text.parse()
    }
}

/// Reads `number` times the power of ten that `exponent` writes; `text` is what
/// the user wrote.
fn share(number: &str, exponent: &str, text: &str) -> Result<Fraction, BudgetError> {
    let number = number.trim();
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(BudgetError::Malformed(text.to_owned()));
    }
    let value: f64 = format!("{number}{exponent}")
        .parse()
        .map_err(|_| BudgetError::Malformed(text.to_owned()))?;
    Fraction::new(value).ok_or_else(|| BudgetError::Share(text.to_owned()))
}

/// Reads a whole number above zero with an optional magnitude.
fn count(amount: &str, text: &str) -> Result<NonZeroU64, BudgetError> {
    let amount = amount.trim();
    let (number, n_zeros) = match amount.as_bytes().last() {
        Some(b'k' | b'K') => (&amount[..amount.len() - 1], 3),
        Some(b'm' | b'M') => (&amount[..amount.len() - 1], 6),
        Some(b'b' | b'B') => (&amount[..amount.len() - 1], 9),
        _ => (amount, 0),
    };
    let number = number.trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.replace('_', "");
    let is_number = whole.bytes().chain(decimals.bytes()).all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number {
        return Err(BudgetError::Malformed(text.to_owned()));
    }
    let decimals = decimals.trim_end_matches('0');
    if decimals.len() > n_zeros {
        return Err(BudgetError::NotWhole(text.to_owned()));
    }
    let value: u64 = format!("{whole}{decimals:0<n_zeros$}")
        .parse()
        .map_err(|_| BudgetError::TooLarge(text.to_owned()))?;
    NonZeroU64::new(value).ok_or_else(|| BudgetError::Nothing(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str) {
        let budget: Budget = text.parse().unwrap();
        assert_eq!(budget.to_string(), canonical);
        assert_eq!(canonical.parse::<Budget>(), Ok(budget));
    }

    #[track_caller]
    fn message(text: &str) -> String {
        text.parse::<Budget>().unwrap_err().to_string()
    }

    #[test]
    fn a_number_with_a_point_or_percent_is_a_share() {
        check("0.05", "0.05");
        check(" .05 ", "0.05");
        check("5%", "0.05");
        check("5 %", "0.05");
        check("7%", "0.07");
        check("33.3%", "0.333");
        check("0.00001%", "0.0000001");
    }

    #[test]
    fn one_is_an_example_and_one_point_zero_is_everything() {
        check("1", "1");
        check("1.0", "1.0");
        check("100%", "1.0");
    }

    #[test]
    fn counts_take_underscores_and_magnitudes() {
        check("2000", "2000");
        check("20k", "20000");
        check("1M tokens", "1000000 tokens");
        check("500k tokens", "500000 tokens");
        check("2_000_000 tokens", "2000000 tokens");
        check("1.5M tokens", "1500000 tokens");
        check("1.250 k", "1250");
        check("2b tokens", "2000000000 tokens");
        check("1token", "1 tokens");
    }

    #[test]
    fn what_is_no_budget_says_why() {
        insta::assert_snapshot!(message("lots"), @"budget `lots` is neither a share (0.05, 5%), a number of examples (2000) nor a number of tokens (1M tokens)");
        insta::assert_snapshot!(message("1.5"), @"budget `1.5` is a share outside (0, 1]; 1.0 or 100% keeps everything");
        insta::assert_snapshot!(message("0%"), @"budget `0%` is a share outside (0, 1]; 1.0 or 100% keeps everything");
        insta::assert_snapshot!(message("0"), @"budget `0` keeps nothing");
        insta::assert_snapshot!(message("0.5 tokens"), @"budget `0.5 tokens` is not a whole number");
        insta::assert_snapshot!(message("99999999999B tokens"), @"budget `99999999999B tokens` is more than can be counted");
    }

    #[test]
    fn forms_that_only_look_like_numbers_are_malformed() {
        for text in ["", ".", "%", "-5", "-5%", "+5", "nan", "inf%", "1e3", "1e-2%", "1,000", "_"] {
            let error = text.parse::<Budget>().unwrap_err();
            assert_eq!(error, BudgetError::Malformed(text.to_owned()));
        }
    }

    #[test]
    fn a_share_counts_in_decimals_and_never_to_none() {
        let of = |share, n| Fraction::new(share).unwrap().of(n);
        assert_eq!(of(0.29, 100), 29);
        assert_eq!(of(0.05, 399), 19);
        assert_eq!(of(0.05, 3), 1);
        assert_eq!(of(1.0, 7), 7);
        assert_eq!(of(0.5, 0), 0);
    }

    #[test]
    fn there_is_no_share_outside_the_unit_interval() {
        for value in [0.0, -0.1, 1.000_001, f64::NAN, f64::INFINITY] {
            assert_eq!(Fraction::new(value), None);
        }
    }

    proptest! {
        #[test]
        fn every_budget_reads_back_from_its_text(share in 0.0..=1.0_f64, n in 1..=u64::MAX) {
            let n = NonZeroU64::new(n).unwrap();
            let share = Fraction::new(share).map(Budget::Fraction);
            for budget in share.into_iter().chain([Budget::Examples(n), Budget::Tokens(n)]) {
                prop_assert_eq!(budget.to_string().parse(), Ok(budget));
                let json = serde_json::to_string(&budget).unwrap();
                prop_assert_eq!(serde_json::from_str::<Budget>(&json).unwrap(), budget);
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9._ kMb%tokens]{0,12}|.*") {
            let _ = text.parse::<Budget>();
        }

        #[test]
        fn a_larger_share_never_keeps_less(a in 0.0001..=1.0_f64, b in 0.0001..=1.0_f64, n in 0..1_000_000_usize) {
            let of = |share| Fraction::new(share).unwrap().of(n);
            prop_assert!(of(a.min(b)) <= of(a.max(b)));
        }
    }
}
