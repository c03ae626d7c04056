//! What a command line asks of a shell, so that one runs only where it is needed.

/// A command line, looked at without running anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Words, perhaps quoted.
    Words,
    /// One program, with something that a shell fills in or redirects.
    OneProgram,
    /// Several programs, or something that only a shell itself can do.
    Script,
}

/// What only a shell can do. Programs of the same name, where there are any, do nothing useful.
const BUILTINS: [&str; 44] = [
    "[[", ".", ":", "alias", "break", "builtin", "case", "cd", "command", "continue", "declare", "do",
    "done", "elif", "else", "esac", "eval", "exit", "export", "fi", "for", "function", "if", "let", "local",
    "popd", "pushd", "read", "readonly", "return", "select", "set", "shift", "shopt", "source", "then",
    "time", "trap", "type", "ulimit", "unset", "until", "wait", "while",
];

/// Returns whether a word begins with an assignment such as `PORT=80`.
pub(super) fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| is_name(name))
}

/// Returns whether a text can be the name of a variable.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Returns the first word of a line that is no assignment, as far as blanks tell words apart.
fn program(line: &str) -> Option<&str> {
    line.split_whitespace().find(|word| !is_assignment(word))
}

/// Returns what a line is.
pub(super) fn kind(line: &str) -> Kind {
    let mut filled = false;
    let mut chars = line.char_indices().peekable();
    let mut quote = None;
    let mut before = ' ';
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        match (quote, c) {
            (Some('\''), _) => {
                if c == '\'' {
                    quote = None;
                }
            }
            (_, '\\') => {
                // A newline behind it goes on with the line, which is the shell's to do.
                filled |= next == Some('\n');
                chars.next();
            }
            (Some(_), '"') => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (_, '$') => {
                filled = true;
                let closing = match next {
                    Some('{') => '}',
                    Some('(') => ')',
                    _ => continue,
                };
                // To its end; one that has none is for the shell to complain about.
                let mut depth = 0_usize;
                for (_, inner) in chars.by_ref() {
                    if inner == '{' || inner == '(' {
                        depth += 1;
                    } else if inner == closing || inner == '}' || inner == ')' {
                        depth -= 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            (_, '`') => {
                filled = true;
                chars.by_ref().find(|(_, inner)| *inner == '`');
            }
            (Some(_), _) => {}
            (None, '&') if before == '>' || before == '<' || next == Some('>') => filled = true,
            (None, '|') if before == '>' => filled = true,
            (None, ';' | '&' | '|' | '(' | ')' | '\n') => return Kind::Script,
            (None, '{' | '}' | '!') if before.is_whitespace() && next.is_none_or(char::is_whitespace) => {
                return Kind::Script;
            }
            (None, '#') if before.is_whitespace() => {
                // The rest of the line says nothing; what is behind it is a second command.
                filled = true;
                if line[at..].trim_end().contains('\n') {
                    return Kind::Script;
                }
                break;
            }
            (None, '<' | '>' | '*' | '?' | '[' | '~' | '{') => filled = true,
            (None, _) => {}
        }
        before = c;
    }
    match program(line) {
        None => Kind::Script,
        Some(word) if BUILTINS.contains(&word) => Kind::Script,
        Some(_) if filled => Kind::OneProgram,
        Some(_) => Kind::Words,
    }
}

/// Returns the line as a shell should run it: with `exec` if that leaves one process instead of two.
pub(super) fn script(line: &str) -> String {
    let begins_with_exec = program(line) == Some("exec");
    if begins_with_exec || kind(line) == Kind::Script {
        line.to_owned()
    } else if line.split_whitespace().next().is_some_and(is_assignment) {
        // `exec` cannot stand before an assignment; `env` can.
        format!("exec env {line}")
    } else {
        format!("exec {line}")
    }
}

/// The words of a line that needs no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// The assignments before the program.
    pub(super) env: Vec<(String, String)>,
    pub(super) command: String,
    pub(super) args: Vec<String>,
}

/// Splits a line; `None` if it needs a shell.
pub(super) fn words(line: &str) -> Option<Words> {
    if kind(line) != Kind::Words {
        return None;
    }
    let mut words = shlex::split(line)?.into_iter().peekable();
    let mut env = Vec::new();
    while let Some(word) = words.next_if(|word| is_assignment(word)) {
        let (name, value) = word.split_once('=')?;
        env.push((name.to_owned(), value.to_owned()));
    }
    // It says that no process is to be left between, and here there is none.
    words.next_if(|word| word == "exec");
    Some(Words { env, command: words.next()?, args: words.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_from_what_a_shell_does() {
        for (line, expected) in [
            ("bundle exec puma -C config/puma.rb", Kind::Words),
            ("sh -c 'cd sites && exec python -m app'", Kind::Words),
            ("php -d \"a;b\" x\\&y", Kind::Words),
            ("PORT=3000 yarn start", Kind::Words),
            ("npm run dev -- --a={b,c}", Kind::OneProgram),
            ("rails s -p ${PORT:-3000} -b \"$HOST\"", Kind::OneProgram),
            ("echo $(a | b; c) `d & e`", Kind::OneProgram),
            ("worker 1>> out.log 2>&1", Kind::OneProgram),
            ("serve # the front", Kind::OneProgram),
            ("ls *.rb", Kind::OneProgram),
            ("a && b", Kind::Script),
            ("a; b", Kind::Script),
            ("a | b", Kind::Script),
            ("a & wait", Kind::Script),
            ("(a)", Kind::Script),
            ("a\nb", Kind::Script),
            ("{ a; }", Kind::Script),
            ("unset A B", Kind::Script),
            ("RAILS_ENV=x cd y", Kind::Script),
            ("A=1", Kind::Script),
            ("[[ -f x ]]", Kind::Script),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
    }

    #[test]
    fn a_shell_gives_way_to_its_only_program() {
        for (line, expected) in [
            ("serve -p $PORT", "exec serve -p $PORT"),
            ("A=$B serve", "exec env A=$B serve"),
            ("A=$B exec serve", "A=$B exec serve"),
            ("exec serve $B", "exec serve $B"),
            ("a $B && c", "a $B && c"),
            ("ulimit -n $N", "ulimit -n $N"),
        ] {
            assert_eq!(script(line), expected, "{line}");
        }
    }

    #[test]
    fn assignments_and_exec_before_words_need_no_shell() {
        let split = words("A=1 B='x y' exec serve --now").expect("words");
        assert_eq!(split.env, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x y".to_owned())]);
        assert_eq!((split.command.as_str(), split.args), ("serve", vec!["--now".to_owned()]));
        for line in ["", "exec", "A=1", "serve 'x", "a|b"] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}
