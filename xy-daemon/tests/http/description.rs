//! The page that describes the endpoints names exactly those that there are.

use std::path::Path;

use xy_daemon::http::openapi;
use xy_daemon::http::route::{Access, ROUTES};

#[test]
fn the_page_lists_every_endpoint_and_no_other() {
    let page = include_str!("../../../docs/http.md");
    let table = page
        .split("| request | scope | query | does |\n|---|---|---|---|\n")
        .nth(1)
        .expect("the page has the table");
    let table: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let rows = ROUTES.map(|route| {
        let scope = if route.access == Access::Open { "no token" } else { route.scope().as_str() };
        let query: Vec<String> = route.query.iter().map(|one| format!("`{}`", one.name)).collect();
        let query = if query.is_empty() { String::new() } else { format!("{} ", query.join(", ")) };
        format!("| `{} {}` | {scope} | {query}| {} |", route.verb.as_str(), route.path, route.summary)
    });
    assert_eq!(table, rows, "the table should be:\n{}", rows.join("\n"));
}

#[test]
fn the_openapi_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let document = openapi::document(std::iter::empty());
    if std::env::var_os("XY_WRITE_DOCS").is_some() {
        let text = serde_json::to_string_pretty(&document).expect("it is JSON") + "\n";
        std::fs::write(&path, text).expect("written");
        return;
    }
    let written = std::fs::read_to_string(&path).expect("the document is there");
    let written: serde_json::Value = serde_json::from_str(&written).expect("it is JSON");
    assert!(written == document, "docs/openapi.json is out of date: run this test with XY_WRITE_DOCS=1");
}
