//! INI text as Python's `RawConfigParser` reads it for supervisord: sections and keys in the order of the file.

/// One `[section]`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    /// Keys in lower case, each once, with their values.
    pub(super) values: Vec<(String, String)>,
}

impl Section {
    /// Returns the value of a key, unless it is absent or empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.values.iter().find(|(name, _)| name == key)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// Makes room for the value of a key.
    pub(super) fn set(&mut self, key: &str) -> &mut String {
        // Of two values the last one counts.
        self.values.retain(|(name, _)| name != key);
        self.values.push((key.to_owned(), String::new()));
        let last = self.values.len() - 1;
        &mut self.values[last].1
    }
}

/// Reads sections; of two with one name, the second goes on with the first.
///
/// # Errors
/// Returns the line that is neither a section nor `key=value`, and why.
pub(super) fn read(text: &str) -> Result<Vec<Section>, String> {
    let mut sections: Vec<Section> = Vec::new();
    let mut current: Option<usize> = None;
    // The key that a line of deeper indentation goes on with, and the indentation of its own line.
    let mut open: Option<(String, usize)> = None;
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let value = without_comment(line);
        if value.is_empty() {
            continue;
        }
        let indentation = line.len() - line.trim_start().len();
        if let (Some(at), Some((key, beginning))) = (current, &open)
            && indentation > *beginning
        {
            let section = &mut sections[at];
            if let Some((_, text)) = section.values.iter_mut().find(|(name, _)| name == key) {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(value);
            }
            continue;
        }
        if let Some(name) = value.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let name = name.0.trim();
            current = Some(sections.iter().position(|section| section.name == name).unwrap_or_else(|| {
                sections.push(Section { name: name.to_owned(), values: Vec::new() });
                sections.len() - 1
            }));
            open = None;
            continue;
        }
        let Some(at) = current else {
            return Err(format!("line {number}: expected a section such as `[program:web]`"));
        };
        let Some((key, text)) = value.split_once(['=', ':']) else {
            return Err(format!("line {number}: expected `key=value`"));
        };
        let key = key.trim().to_lowercase();
        *sections[at].set(&key) = text.trim().to_owned();
        open = Some((key, indentation));
    }
    Ok(sections)
}

/// Returns a line without its comment, which begins the line or stands behind a blank, and without blanks around it.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if (c == ';' || c == '#') && before.is_whitespace() {
            return line[..at].trim();
        }
        before = c;
    }
    line.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        read(text).expect("readable").into_iter().map(|section| (section.name, section.values)).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn comments_need_a_blank_before_them_and_keys_have_no_case() {
        let read = values("; a\n[program:a] ; b\nCommand = x;y#z ; c # d\nuser: me\t# e\n");
        assert_eq!(read, [("program:a".to_owned(), pairs(&[("command", "x;y#z"), ("user", "me")]))]);
    }

    #[test]
    fn a_deeper_line_goes_on_with_the_value_also_behind_comments_and_empty_lines() {
        let read = values("[a]\nfiles = one\n   two\n; no\n\n   three\nlast=\n  =four\n");
        assert_eq!(read, [("a".to_owned(), pairs(&[("files", "one\ntwo\nthree"), ("last", "=four")]))]);
    }

    #[test]
    fn what_is_there_twice_counts_once_and_the_last_time() {
        let read = values("[a]\nx=1\nx=2\n[b]\n[a]\nx=3\ny=4\n");
        assert_eq!(read[0], ("a".to_owned(), pairs(&[("x", "3"), ("y", "4")])));
        assert_eq!(read[1], ("b".to_owned(), Vec::new()));
    }

    #[test]
    fn a_line_that_is_neither_is_named() {
        assert_eq!(read("x=1\n"), Err("line 1: expected a section such as `[program:web]`".to_owned()));
        assert_eq!(read("[a]\n\nnothing\n"), Err("line 3: expected `key=value`".to_owned()));
    }
}
