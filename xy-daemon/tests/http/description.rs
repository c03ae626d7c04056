//! The page that describes the endpoints names exactly those that there are.

use xy_daemon::http::route::{Access, ROUTES};

#[test]
fn the_page_lists_every_endpoint_and_no_other() {
    let page = include_str!("../../../docs/http.md");
    let table =
        page.split("| request | query | does |\n|---|---|---|\n").nth(1).expect("the page has the table");
    let table: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let rows = ROUTES.map(|route| {
        let access = if route.access == Access::Open { " (no token)" } else { "" };
        let query: Vec<String> = route.query.iter().map(|one| format!("`{}`", one.name)).collect();
        let query = if query.is_empty() { String::new() } else { format!("{} ", query.join(", ")) };
        format!("| `{} {}`{access} | {query}| {} |", route.verb.as_str(), route.path, route.summary)
    });
    assert_eq!(table, rows, "the table should be:\n{}", rows.join("\n"));
}
