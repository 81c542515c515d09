//! How much of an answer two texts share.

use std::collections::BTreeMap;

/// The F1 score of the words of `said` against those of `wanted`, in `[0, 1]`: that of
/// `SQuAD` (Rajpurkar et al., 2016), which TyDiQA's gold passages are scored by, too.
/// Case, punctuation and the English articles do not count. Two empty answers agree.
pub fn f1(said: &str, wanted: &str) -> f64 {
    let (said, wanted) = (words(said), words(wanted));
    if said.is_empty() || wanted.is_empty() {
        return f64::from(u8::from(said.is_empty() && wanted.is_empty()));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in &wanted {
        *counts.entry(word).or_default() += 1;
    }
    let n_shared = said.iter().filter(|word| take(&mut counts, word)).count() as f64;
    2.0 * n_shared / (said.len() + wanted.len()) as f64
}

/// Takes one of `word`, if there is one left.
fn take(counts: &mut BTreeMap<&str, usize>, word: &str) -> bool {
    match counts.get_mut(word) {
        Some(count @ 1..) => {
            *count -= 1;
            true
        }
        _ => false,
    }
}

fn words(text: &str) -> Vec<String> {
    let plain: String = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || c.is_whitespace() || !is_punctuation(*c))
        .collect();
    let words = plain.split_whitespace().filter(|word| !["a", "an", "the"].contains(word));
    words.map(str::to_owned).collect()
}

/// ASCII's punctuation, and the marks that end sentences and quote in other scripts.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || "‘’´`“”«»¿¡…–—、。，．！？「」『』（）؟،؛।".contains(c)
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;

    use super::*;

    #[test]
    fn shared_words_count_as_often_as_both_have_them() {
        // Two of three words said, two of four wanted.
        assert_abs_diff_eq!(f1("Paris, in June", "June in London town"), 4.0 / 7.0);
        assert_abs_diff_eq!(f1("no no no", "no"), 0.5);
        assert_abs_diff_eq!(f1("The  cat!", "cat"), 1.0);
        assert_abs_diff_eq!(f1("dog", "cat"), 0.0);
        assert_abs_diff_eq!(f1("", "the"), 1.0);
        assert_abs_diff_eq!(f1("", "cat"), 0.0);
    }

    #[test]
    fn other_scripts_have_words_too() {
        assert_abs_diff_eq!(f1("في القاهرة؟", "القاهرة"), 2.0 / 3.0);
    }
}
