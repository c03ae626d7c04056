//! Which servers an operation is about, where patterns and tags are given.

use super::{Control, gone};
use crate::protocol::error::RpcError;
use crate::protocol::pattern;

impl Control {
    /// Replaces each pattern by the servers it stands for; one that stands for none remains, and is then not found.
    pub(super) async fn matching(&self, names: Vec<String>) -> Result<Vec<String>, RpcError> {
        if !names.iter().any(|name| pattern::is_pattern(name)) {
            return Ok(names);
        }
        let rows = self.rows().await.map_err(gone)?;
        let meant = names.into_iter().flat_map(|name| {
            if !pattern::is_pattern(&name) {
                return vec![name];
            }
            let matching = rows.iter().filter(|row| pattern::matches(&name, &row.name, &row.tags));
            let mut meant: Vec<String> = matching.map(|row| row.name.clone()).collect();
            meant.sort();
            if meant.is_empty() { vec![name] } else { meant }
        });
        Ok(meant.collect())
    }
}
