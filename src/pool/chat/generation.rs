//! `{% generation %}` blocks, which minijinja does not know.

/// `source` with every `{% generation %}` block rewritten to print `open`
/// before and `close` behind what is inside it; `None` if there is no such
/// block.
///
/// A tag becomes two with the print between them, `{% if true %}` outside and
/// `{% with %}` inside, so that the outer tag keeps the blanks rules of the
/// side before it, the inner one those of the side behind it, and variables
/// set inside stay inside, as they do in `transformers`.
pub(super) fn rewrite(source: &str, open: &str, close: &str) -> Option<String> {
    let mut rewritten = String::with_capacity(source.len() + 64);
    let mut found = false;
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // Behind the opening: the sign of `{%}` is not that of its end, too.
        let Some(n_bytes) = rest[start + 2..].find("%}") else { break };
        let end = start + 2 + n_bytes;
        let tag = &rest[start + 2..end];
        let (before, word, behind) = split_tag(tag);
        rewritten.push_str(&rest[..start]);
        let written = match word {
            "generation" => {
                found = true;
                format!("{{%{before} if true %}}{{{{ {open} }}}}{{% with {behind}%}}")
            }
            "endgeneration" => {
                format!("{{%{before} endwith %}}{{{{ {close} }}}}{{% endif {behind}%}}")
            }
            _ => rest[start..end + 2].to_owned(),
        };
        rewritten.push_str(&written);
        rest = &rest[end + 2..];
    }
    rewritten.push_str(rest);
    found.then_some(rewritten)
}

/// A tag's blanks sign before, its text, and its blanks sign behind.
fn split_tag(tag: &str) -> (&str, &str, &str) {
    let n_before = usize::from(tag.starts_with(['-', '+']));
    let (before, rest) = tag.split_at(n_before);
    let n_behind = usize::from(rest.ends_with(['-', '+']));
    let (word, behind) = rest.split_at(rest.len() - n_behind);
    (before, word.trim(), behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_their_blanks_signs() {
        assert_eq!(
            rewrite("a {%- generation %} b {%endgeneration -%} c", "x", "y").as_deref(),
            Some("a {%- if true %}{{ x }}{% with %} b {% endwith %}{{ y }}{% endif -%} c")
        );
    }

    #[test]
    fn a_tag_does_not_end_with_the_sign_it_begins_with() {
        assert_eq!(rewrite("{%}", "x", "y"), None);
        assert_eq!(
            rewrite("{%}a%}{% generation %}b", "x", "y").as_deref(),
            Some("{%}a%}{% if true %}{{ x }}{% with %}b")
        );
    }

    #[test]
    fn other_templates_are_left_alone() {
        assert_eq!(rewrite("{% if add_generation_prompt %}{% endif %}{% cut", "x", "y"), None);
    }
}
