//! A parse error of ron -> a configuration error in our words, with its place, key path and hint.

use std::path::Path;

use ron::error::{Error as RonError, SpannedError};

use super::error::{ConfigError, nearest};
use super::outline::Outline;

/// The message of a duplicate map key; the key itself is taken from the text.
pub(super) const DUPLICATE: &str = "duplicate key";

/// Tells a parse error in our words, with its key path.
pub(super) fn told(file: &Path, outline: &Outline<'_>, form: &str, error: &SpannedError) -> ConfigError {
    let cursor = outline.offset_of(error.span.end.line, error.span.end.col);
    // What was read and then refused lies before the cursor; what could not be read begins at it.
    let refused = outline.token_before(cursor).unwrap_or(cursor);
    let under = |parent: String, key: &str| {
        if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
    };
    let (offset, key, message, hint) = match &error.code {
        RonError::NoSuchStructField { expected, found, .. } => (
            refused,
            under(outline.parent_at(refused), found),
            format!("unknown key `{found}`, {}", one_of(expected)),
            did_you_mean(found, expected),
        ),
        RonError::NoSuchEnumVariant { expected, found, .. } => (
            refused,
            outline.path_at(refused),
            format!("unknown value `{found}`, {}", one_of(expected)),
            did_you_mean(found, expected),
        ),
        RonError::DuplicateStructField { field, .. } => {
            (refused, under(outline.parent_at(refused), field), format!("{DUPLICATE} `{field}`"), None)
        }
        RonError::MissingStructField { field, .. } => {
            (cursor, outline.parent_at(cursor), format!("missing key `{field}`"), None)
        }
        RonError::InvalidValueForType { expected, found } => {
            let found = found.replace("a sequence", "a list").replace("a unit value", "a bare word");
            let found = found.replace("unsigned integer", "number");
            (refused, outline.path_at(refused), format!("expected {expected}, found {found}"), None)
        }
        RonError::ExpectedDifferentStructName { found, .. } => {
            let hint = format!("the file is written as {form}");
            let key = outline.path_at(refused);
            let hint = key.is_empty().then_some(hint);
            (refused, key, format!("unexpected word `{found}`"), hint)
        }
        RonError::Message(message) if message == DUPLICATE => {
            let name = outline.word_at(refused).trim_matches('"');
            let parent = outline.parent_at(refused);
            (refused, under(parent, name), format!("{DUPLICATE} `{name}`"), None)
        }
        RonError::Message(message) => (refused, outline.path_at(refused), message.clone(), None),
        code => {
            let key = outline.path_at(cursor);
            let found = outline.word_at(cursor);
            // Whatever was expected next, the end of the file is what stands there.
            let kept = matches!(code, RonError::UnclosedBlockComment) || !found.is_empty();
            let code = if kept { code } else { &RonError::Eof };
            let hint = hint_for(code, &key, found, form);
            (cursor, key, in_our_words(code), hint)
        }
    };
    let (line, column) = outline.position_of(offset);
    ConfigError {
        file: file.to_owned(),
        line: Some(line),
        column: Some(column),
        key: Some(key).filter(|key| !key.is_empty()),
        message,
        hint,
    }
}

/// Lists what was expected.
fn one_of(expected: &[&str]) -> String {
    let words: Vec<String> = expected.iter().map(|word| format!("`{word}`")).collect();
    match words.as_slice() {
        [] => "expected nothing here".to_owned(),
        [word] => format!("expected {word}"),
        words => format!("expected one of {}", words.join(", ")),
    }
}

fn did_you_mean(found: &str, expected: &[&str]) -> Option<String> {
    nearest(found, expected).map(|word| format!("did you mean `{word}`?"))
}

/// Says what the parser wanted.
fn in_our_words(code: &RonError) -> String {
    let text = match code {
        RonError::Eof => "the file ends too early, a value or a closing bracket is missing",
        RonError::ExpectedArray => "expected a list `[..]`",
        RonError::ExpectedArrayEnd => "expected a closing `]`",
        RonError::ExpectedBoolean => "expected `true` or `false`",
        RonError::ExpectedComma => "expected a comma",
        RonError::ExpectedFloat => "expected a number",
        RonError::ExpectedInteger => "expected a whole number",
        RonError::IntegerOutOfBounds => "number is out of range",
        RonError::ExpectedMap => "expected a map `{..}`",
        RonError::ExpectedMapColon => "expected a colon",
        RonError::ExpectedMapEnd => "expected a closing `}`",
        RonError::ExpectedStructLike | RonError::ExpectedNamedStructLike(_) => "expected `(`",
        RonError::ExpectedStructLikeEnd | RonError::ExpectedOptionEnd => "expected a closing `)`",
        RonError::ExpectedString => "expected a string in quotes",
        RonError::ExpectedStringEnd => "expected a closing quote",
        RonError::ExpectedIdentifier => "expected a key or a word",
        RonError::TrailingCharacters => "expected the end of the file",
        RonError::UnclosedBlockComment => "block comment is never closed",
        RonError::ExceededRecursionLimit => "brackets are nested too deeply",
        other => {
            let text = other.to_string();
            let mut characters = text.chars();
            return characters
                .next()
                .map(|first| first.to_lowercase().chain(characters).collect())
                .unwrap_or_default();
        }
    };
    text.to_owned()
}

/// Returns what probably helps where the parser alone cannot know it.
fn hint_for(code: &RonError, key: &str, found: &str, form: &str) -> Option<String> {
    // In a child of a group the same keys are meant.
    let key = key.rsplit_once("].").map_or(key, |(_, key)| key);
    match code {
        RonError::ExpectedIdentifier if key == "ready" || key == "liveness.probe" => {
            Some("write the key too, as in `Http(path: \"/health\")`".to_owned())
        }
        _ if key.starts_with("secrets.") => Some(
            "write where it comes from: `Env(\"NAME\")`, `File(\"path\")` or `Command([\"program\", \"argument\"])`"
                .to_owned(),
        ),
        RonError::ExpectedIdentifier
        | RonError::ExpectedStructLike
        | RonError::ExpectedNamedStructLike(_)
            if key.is_empty() =>
        {
            Some(format!("the file is written as {form}"))
        }
        RonError::ExpectedStructLike | RonError::ExpectedNamedStructLike(_) if key.ends_with(".header") => {
            Some("write it as `(\"NAME\", \"VALUE\")`".to_owned())
        }
        RonError::ExpectedStructLike | RonError::ExpectedNamedStructLike(_)
            if key == "ready" || key == "liveness.probe" =>
        {
            Some("as in `Log(\"listening on .*\")` or `Exec(command: \"pg_isready\")`".to_owned())
        }
        RonError::ExpectedString if found.starts_with(|c: char| c.is_ascii_digit()) => {
            Some("put the number in quotes".to_owned())
        }
        RonError::ExpectedInteger if found.starts_with('"') => Some("leave out the quotes".to_owned()),
        _ => None,
    }
}
