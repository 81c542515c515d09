//! Texts as words, for whether two of them say the same.

use unicode_segmentation::UnicodeSegmentation;

/// The words of a text: runs of letters and digits, in lower case, and within them
/// what Unicode's rules (UAX #29) part. Where a script has no spaces between words,
/// these are nearly its characters: of Chinese, hiragana, Thai, Lao, Khmer and
/// Burmese; katakana stays together. Where its words really end, only a dictionary
/// knows, and here it does not matter, as long as every text is parted alike.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let runs = text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty());
    runs.flat_map(UnicodeSegmentation::unicode_words).map(str::to_lowercase)
}

/// A hash of some words in their order.
pub(super) fn hash_of<Word: AsRef<str>>(words: &[Word]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for word in words {
        hasher.update(word.as_ref().as_bytes()).update(b" ");
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parted(text: &str) -> String {
        words(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        insta::assert_snapshot!(parted("Don't pay $3.50, Żółć_2: НЕТ! 한국어 단어"), @"don t pay 3 50 żółć 2 нет 한국어 단어");
    }

    #[test]
    fn scripts_without_spaces_are_parted_within_a_sentence() {
        insta::assert_snapshot!(parted("他有3个GPU吗？"), @"他 有 3 个 gpu 吗");
        insta::assert_snapshot!(parted("猫はデータを見る。"), @"猫 は データ を 見 る");
        for sentence in ["ฉันชอบกินข้าวผัด", "ຂ້ອຍມັກກິນເຂົ້າ", "ខ្ញុំចូលចិត្តបាយ", "ကျွန်တော်ထမင်းစားချင်ပါတယ်"]
        {
            assert!(words(sentence).count() >= 8, "{}", parted(sentence));
        }
    }
}
