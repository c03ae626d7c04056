//! Rules about the sources that no compiler or lint checks.

use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("readable");
                found.push((path, text));
            }
        }
    }
    found
}

/// A public function and what its documentation says.
struct Function {
    name: String,
    signature: String,
    docs: String,
}

/// Returns the public functions of a source; those of private modules count as well.
fn public_functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("pub ") else { continue };
        let Some((modifiers, rest)) = rest.split_once("fn ") else { continue };
        if !modifiers.split_whitespace().all(|word| ["const", "async", "unsafe"].contains(&word)) {
            continue;
        }
        let until_body = |line: &&&str| !line.contains('{') && !line.ends_with(';');
        let open = lines[index..].iter().take_while(until_body).count();
        let signature = lines[index..=(index + open).min(lines.len() - 1)].join(" ");
        let above = lines[..index].iter().rev();
        let docs: Vec<&str> =
            above.take_while(|line| line.starts_with("///") || line.starts_with("#[")).copied().collect();
        let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
        found.push(Function { name, signature, docs: docs.join("\n") });
    }
    found
}

/// Names the public functions that need a section and have none.
fn lacking(section: &str, needs: impl Fn(&Function) -> bool) -> Vec<String> {
    let mut lacking = Vec::new();
    for (path, text) in sources() {
        for function in public_functions(&text).iter().filter(|function| needs(function)) {
            if !function.docs.contains(section) {
                lacking.push(format!("{}: `{}`", path.display(), function.name));
            }
        }
    }
    lacking
}

fn is_async(function: &Function) -> bool {
    function.signature.contains("async fn ") || function.signature.contains("impl Future")
}

#[test]
fn every_public_async_function_says_whether_it_is_cancel_safe() {
    let asynchronous = sources().iter().flat_map(|(_, text)| public_functions(text)).filter(is_async).count();
    assert!(asynchronous > 20, "the search finds them: {asynchronous}");
    assert_eq!(lacking("# Cancel safety", is_async), Vec::<String>::new());
}

#[test]
fn every_public_function_that_can_fail_says_when() {
    let fails = |function: &Function| {
        let head = function.signature.split(" where ").next().unwrap_or_default();
        let answer = head.rsplit("->").next().unwrap_or_default();
        head.contains("->") && answer.contains("Result<")
    };
    assert_eq!(lacking("# Errors", fails), Vec::<String>::new());
}

#[test]
fn every_source_opens_with_what_it_is_responsible_for() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//! "));
    let silent: Vec<PathBuf> = silent.map(|(path, _)| path).collect();
    assert_eq!(silent, Vec::<PathBuf>::new());
}
