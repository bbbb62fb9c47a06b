//! Licence expressions (SPDX 2.3, annex D), as far as crates use them.

/// Whether a licence expression can be met with allowed licences alone. `None` where it is no expression.
///
/// An exception, as in `Apache-2.0 WITH LLVM-exception`, is part of the licence's name. A `/` means `OR`, as it did
/// before crates had to write expressions.
pub(crate) fn allows(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = alternatives(&mut words, allowed)?;
    words.next().is_none().then_some(met)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn alternatives(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = together(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        met |= together(words, allowed)?;
    }
    Some(met)
}

fn together(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = licence(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        met &= licence(words, allowed)?;
    }
    Some(met)
}

fn licence(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    match words.next()? {
        "(" => {
            let met = alternatives(words, allowed)?;
            words.next_if_eq(&")")?;
            Some(met)
        }
        ")" | "AND" | "OR" | "WITH" => None,
        name => Some(match words.next_if_eq(&"WITH") {
            Some(_) => allowed(&format!("{name} WITH {}", words.next()?)),
            None => allowed(name),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> Option<bool> {
        allows(expression, &|name| {
            matches!(name, "MIT" | "ISC" | "Apache-2.0 WITH LLVM-exception")
        })
    }

    #[test]
    fn one_alternative_is_enough_and_all_parts_are_needed() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("GPL-3.0 OR MIT AND ISC", true),
            ("(GPL-3.0 OR MIT) AND ISC", true),
            ("(GPL-3.0 OR MIT) AND LGPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("MIT WITH LLVM-exception", false),
        ] {
            assert_eq!(met(expression), Some(expected), "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_not_guessed_at() {
        for text in ["", "MIT OR", "(MIT", "MIT)", "AND", "MIT ISC", "MIT WITH"] {
            assert_eq!(met(text), None, "{text:?}");
        }
    }
}
