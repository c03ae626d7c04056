//! `xyctl rm`: stops servers and deletes their files.

use serde_json::json;
use xy_daemon::protocol::method::{Remove, RemoveParams};

use crate::args::RmArgs;
use crate::error::{CommandError, exit_code};
use crate::output::Style;
use crate::output::text::neutral;
use crate::session::{Session, explain};

/// Runs the command.
pub(super) async fn run(args: &RmArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let mut code = exit_code::SUCCESS;
    let mut removed = Vec::new();
    let mut failed = Vec::new();
    for name in &args.names {
        match client.call::<Remove>(RemoveParams { name: name.clone() }).await {
            Ok(result) => {
                let file = result.file.as_deref().map(|file| format!(", {file} deleted")).unwrap_or_default();
                for name in &result.removed {
                    let what = session.output.paint(Style::Good, "removed");
                    let line = format!("{}: {what}{}", neutral(name), neutral(&file));
                    if !session.output.is_json() {
                        session.output.line(&line)?;
                    }
                }
                removed.extend(result.removed);
            }
            Err(error) => {
                let error = explain(&client, name, error.into()).await;
                code = error.exit_code();
                if session.output.is_json() {
                    failed.push(json!({ "name": name, "message": error.to_string() }));
                } else {
                    session.output.error(&error);
                }
            }
        }
    }
    if session.output.is_json() {
        session.output.json(&json!({ "removed": removed, "failed": failed }))?;
    }
    Ok(code)
}
