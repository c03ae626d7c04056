//! The daemon as a launchd agent. The file was read back by a parser and never by launchd itself.

use std::path::Path;

use plist::{Dictionary, Value};

use super::{MARK, Scope, Service, printable};
use crate::error::LifecycleError;

/// The name of the agent.
pub(super) const LABEL: &str = "dev.xy.xyd";

/// Returns the name of the agent's file.
pub(super) fn file_name() -> String {
    format!("{LABEL}.plist")
}

/// Returns the property list of the agent.
pub(super) fn agent(service: &Service) -> Result<String, LifecycleError> {
    let mut command = vec![printable(&service.program)?.to_owned(), "--no-guard".to_owned()];
    for (option, path) in [("--config", &service.config), ("--socket", &service.socket)] {
        if let Some(path) = path {
            command.extend([option.to_owned(), printable(path)?.to_owned()]);
        }
    }
    let mut keep_alive = Dictionary::new();
    keep_alive.insert("SuccessfulExit".to_owned(), false.into());
    let mut agent = Dictionary::new();
    agent.insert("Label".to_owned(), LABEL.into());
    agent.insert("ProgramArguments".to_owned(), Value::Array(command.into_iter().map(Value::from).collect()));
    agent.insert("RunAtLoad".to_owned(), true.into());
    agent.insert("KeepAlive".to_owned(), keep_alive.into());
    // Longer than xyd needs to end its servers.
    agent.insert("ExitTimeOut".to_owned(), Value::from(120));
    agent.insert("ProcessType".to_owned(), "Background".into());
    let log = match service.scope {
        Scope::System => Some(Path::new("/Library/Logs").to_owned()),
        Scope::User => dirs::home_dir().map(|home| home.join("Library/Logs")),
    };
    if let Some(log) = log.map(|directory| directory.join("xyd.log")) {
        agent.insert("StandardErrorPath".to_owned(), printable(&log)?.into());
    }
    agent.insert("ServiceDescription".to_owned(), MARK.into());
    let mut text = Vec::new();
    // Nothing here is refused by the format, and memory takes all of it.
    Value::Dictionary(agent).to_writer_xml(&mut text).map_err(|error| LifecycleError::File {
        path: file_name().into(),
        source: std::io::Error::other(error),
    })?;
    text.push(b'\n');
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_a_property_list_with_the_arguments_as_they_are() {
        let service = Service {
            program: "/My Programs/<xyd> & co".into(),
            config: Some("/Users/é/xy".into()),
            socket: None,
            scope: Scope::User,
        };
        let text = agent(&service).expect("writable");
        assert!(text.contains(MARK));
        let read = Value::from_reader_xml(text.as_bytes()).expect("a property list");
        let read = read.as_dictionary().expect("a dictionary");
        let arguments = read["ProgramArguments"].as_array().expect("an array");
        let arguments: Vec<_> =
            arguments.iter().map(|argument| argument.as_string().expect("text")).collect();
        assert_eq!(arguments, ["/My Programs/<xyd> & co", "--no-guard", "--config", "/Users/é/xy"]);
        assert_eq!(read["Label"].as_string(), Some(LABEL));
    }
}
