//! `$NAME`, `${NAME}` and `${NAME:-default}` in values that no shell will see.

use super::shell::is_name;

/// A text with its variables filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Filled {
    pub(super) text: String,
    /// The variables that were filled in, also with a default.
    pub(super) known: Vec<String>,
    /// What nothing could be filled in for; it stays as it was written.
    pub(super) unknown: Vec<String>,
}

/// Fills in what `lookup` knows, by the name of the variable or what else stands between the brackets. `$$` is one `$`.
pub(super) fn fill(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Filled {
    let mut filled = Filled::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            filled.text.push('$');
            rest = after;
            continue;
        }
        let (whole, inner) = match rest.strip_prefix("${") {
            Some(after) => match after.find('}') {
                Some(end) => (&rest[..end + 3], &after[..end]),
                None => break,
            },
            None => {
                let end = rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let end = end.map_or(rest.len(), |end| end + 1);
                if !is_name(&rest[1..end]) {
                    filled.text.push('$');
                    rest = &rest[1..];
                    continue;
                }
                (&rest[..end], &rest[1..end])
            }
        };
        let (name, default) = match inner.split_once(":-").or_else(|| inner.split_once('-')) {
            Some((name, default)) if is_name(name) => (name, Some(default)),
            _ => (inner, None),
        };
        match lookup(name).filter(|value| default.is_none() || !value.is_empty()) {
            Some(value) => {
                filled.text.push_str(&value);
                filled.known.push(name.to_owned());
            }
            None => match default {
                Some(default) => {
                    filled.text.push_str(default);
                    filled.known.push(name.to_owned());
                }
                None => {
                    filled.text.push_str(whole);
                    filled.unknown.push(whole.to_owned());
                }
            },
        }
        rest = &rest[whole.len()..];
    }
    filled.text.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_with_their_values_or_defaults() {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("$A/${A}b$A_", "1/1b$A_"),
            ("${B:-x y}${EMPTY:-z}${A:-q}", "x yz1"),
            ("$$A costs $5 and $", "$A costs $5 and $"),
            ("${A", "${A"),
            ("a${B}c", "a${B}c"),
        ] {
            assert_eq!(fill(text, lookup).text, expected, "{text}");
        }
        let filled = fill("$A$B${C}${D:-}", lookup);
        assert_eq!(filled.known, ["A", "D"]);
        assert_eq!(filled.unknown, ["$B", "${C}"]);
    }
}
