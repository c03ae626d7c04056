//! The value of `environment`: variables as supervisord writes them.

/// Reads `KEY="value",OTHER=value`.
pub(super) fn read(text: &str) -> Option<Vec<(String, String)>> {
    let mut variables = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| *c == '"' || *c == '\'');
        let (value, after) = match quote {
            Some(quote) => after[1..].split_once(quote)?,
            None => after.split_at(after.find([',', '\n']).unwrap_or(after.len())),
        };
        let key = key.trim();
        if key.is_empty() {
            return None;
        }
        let value = if quote.is_some() { value } else { value.trim() };
        variables.push((key.to_owned(), value.to_owned()));
        let is_next_line = after.starts_with('\n');
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if rest.is_empty() || is_next_line => rest,
            None => return None,
        };
    }
    Some(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_parted_by_commas_and_lines_and_quoted_where_they_have_one() {
        for (text, expected) in [
            ("A=1", vec![("A", "1")]),
            ("A=\"a,b\", B='c \"d\"',C= e ,", vec![("A", "a,b"), ("B", "c \"d\""), ("C", "e")]),
            ("A=\"1\",\nB=2\nC=\"\"", vec![("A", "1"), ("B", "2"), ("C", "")]),
            ("A=http://a:1/?b=c", vec![("A", "http://a:1/?b=c")]),
            ("", vec![]),
        ] {
            let read = read(text).unwrap_or_else(|| panic!("{text} is understood"));
            let read: Vec<_> = read.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(read, expected, "{text}");
        }
        for text in ["A", "=1", "A=\"1", "A=\"1\"B=2"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
