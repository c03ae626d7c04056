//! The `.env` beside a file: what it sets, and whether xy reads it the same way.

use std::io;
use std::path::{Path, PathBuf};

use super::server::Server;
use super::shell::is_name;
use super::{Import, text_of, variables};

/// Whether a `$` in a value stands for a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dollar {
    /// It is a character like any other, as xy and foreman have it.
    Plain,
    /// Outside single quotes, a variable of the file or of the environment is filled in.
    Fills,
}

/// An environment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dotenv {
    path: PathBuf,
    /// Each name once, with its last value.
    variables: Vec<(String, String)>,
    /// The first line that xy would read in another way or refuse, and why.
    problem: Option<(usize, &'static str)>,
}

impl Dotenv {
    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub(super) fn read(path: &Path, dollar: Dollar) -> io::Result<Option<Self>> {
        match text_of(path) {
            Ok(text) => Ok(Some(Self::parse(path, &text, dollar))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the one at this path for all servers of a file; what is wrong with it is noted.
    pub(super) fn beside(path: &Path, dollar: Dollar, import: &mut Import) -> Option<Self> {
        let shown = path.display();
        match Self::read(path, dollar) {
            Ok(None) => None,
            Ok(Some(dotenv)) => {
                if let Some((line, why)) = dotenv.problem {
                    import.left_of_file(format!(
                        "`{shown}`, line {line}: {why}; what the file sets now is written into `env` of each \
                         server instead of its name into `env_files`"
                    ));
                }
                Some(dotenv)
            }
            Err(error) => {
                import.left_of_file(format!("`{shown}`, which cannot be read: {error}"));
                None
            }
        }
    }

    /// Returns the value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Gives a server these variables, behind those that it sets itself.
    pub(super) fn attach(&self, server: &mut Server) {
        if self.problem.is_none() {
            server.env_files.push(self.path.display().to_string());
            return;
        }
        for (name, value) in &self.variables {
            server.env.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    fn parse(path: &Path, text: &str, dollar: Dollar) -> Self {
        let mut dotenv = Self { path: path.to_owned(), variables: Vec::new(), problem: None };
        let mut lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
        while let Some((number, line)) = lines.next() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let mut problem = |why| {
                dotenv.problem.get_or_insert((number, why));
            };
            let line = line.strip_prefix("export ").unwrap_or(line);
            let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()))
            else {
                problem("it is no `KEY=VALUE`");
                continue;
            };
            if !is_name(name) {
                problem("its key is no name of a variable");
                continue;
            }
            let quote = value.chars().next().filter(|c| *c == '"' || *c == '\'');
            let value = match quote {
                Some(quote) => {
                    let mut whole = value[1..].to_owned();
                    while closing(&whole, quote).is_none() {
                        let Some((_, more)) = lines.next() else { break };
                        whole.push('\n');
                        whole.push_str(more);
                    }
                    let end = closing(&whole, quote).unwrap_or_else(|| {
                        problem("it has a quote without its end");
                        whole.len()
                    });
                    let behind = whole.get(end + 1..).unwrap_or_default();
                    if !behind.trim().is_empty() && !behind.trim_start().starts_with('#') {
                        problem("something stands behind its closing quote");
                    }
                    let inner = &whole[..end];
                    if quote == '"' && inner.contains('\\') {
                        problem("what a backslash means in it differs from program to program");
                    }
                    if quote == '"' { unescaped(inner) } else { inner.to_owned() }
                }
                None => {
                    let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
                    let bare = value[..end].trim_end();
                    if end < value.len() || bare.contains(['"', '\'', '\\']) {
                        problem("a comment, quote or backslash in it has to be quoted");
                    }
                    bare.to_owned()
                }
            };
            let value = if dollar == Dollar::Fills && quote != Some('\'') && value.contains('$') {
                problem("it fills in other variables");
                let known = |name: &str| {
                    let own = dotenv.variables.iter().find(|(key, _)| key == name);
                    own.map(|(_, value)| value.clone()).or_else(|| std::env::var(name).ok())
                };
                variables::fill(&value, known).text
            } else {
                value
            };
            if dotenv.get(name).is_some() {
                dotenv.problem.get_or_insert((number, "it sets a variable again"));
                dotenv.variables.retain(|(key, _)| key != name);
            }
            dotenv.variables.push((name.to_owned(), value));
        }
        dotenv
    }
}

/// Returns where the closing quote stands.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == quote && !is_escaped;
        is_escaped = quote == '"' && c == '\\' && !is_escaped;
        ends.then_some(at)
    })
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some('t') => plain.push('\t'),
                Some(other @ ('"' | '\\' | '$' | '`')) => plain.push(other),
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
            (c, false) => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, dollar: Dollar) -> (Vec<(String, String)>, Option<usize>) {
        let dotenv = Dotenv::parse(Path::new("/x/.env"), text, dollar);
        (dotenv.variables, dotenv.problem.map(|(line, _)| line))
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_file_that_xy_reads_the_same_way_is_named_and_not_copied() {
        let text = "# a\n\nexport A=1\nB = two words \nC='x # \"y\"'\nD=\"z\" # why\nE=$A\nF=\n";
        let (variables, problem) = parsed(text, Dollar::Plain);
        let expected =
            [("A", "1"), ("B", "two words"), ("C", "x # \"y\""), ("D", "z"), ("E", "$A"), ("F", "")];
        assert_eq!((variables, problem), (pairs(&expected), None));
    }

    #[test]
    fn what_xy_reads_in_another_way_is_found_with_its_line() {
        for (text, dollar, expected, line) in [
            ("A=1\nB=2 # two\n", Dollar::Plain, vec![("A", "1"), ("B", "2")], 2),
            ("A=it's\n", Dollar::Plain, vec![("A", "it's")], 1),
            ("A=\"1\\n2\"\n", Dollar::Plain, vec![("A", "1\n2")], 1),
            ("A=\"1\"2\n", Dollar::Plain, vec![("A", "1")], 1),
            ("A='1\n", Dollar::Plain, vec![("A", "1")], 1),
            ("A=1\nA=2\n", Dollar::Plain, vec![("A", "2")], 2),
            ("what\nA=1\n", Dollar::Plain, vec![("A", "1")], 1),
            ("a-b=1\n", Dollar::Plain, vec![], 1),
            ("A=\"1\n2\"\nB=3 #\n", Dollar::Plain, vec![("A", "1\n2"), ("B", "3")], 3),
            ("A=1\nB=${A}2\n", Dollar::Fills, vec![("A", "1"), ("B", "12")], 2),
        ] {
            assert_eq!(parsed(text, dollar), (pairs(&expected), Some(line)), "{text}");
        }
    }
}
