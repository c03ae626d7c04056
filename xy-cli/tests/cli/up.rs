//! The daemon in the foreground.

use std::io::{BufRead, BufReader, Read};

use nix::sys::signal::Signal;

use crate::xyctl::{finish, signal, start_in};

#[test]
fn up_says_what_to_type_and_ends_with_each_signal() {
    for end in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let home = tempfile::tempdir().unwrap();
        let (servers, socket) = (home.path().join("servers"), home.path().join("run/xyd.sock"));
        std::fs::create_dir(&servers).unwrap();
        let mut child = start_in(home.path(), &socket, &["up", servers.to_str().unwrap()]);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.ends_with("Ctrl-C here stops everything\n") {
            assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
        }
        assert!(said.starts_with("xyd is up: "), "{said}");
        let list = format!(" list --socket {} ", socket.display());
        assert!(said.contains(&list), "{said}");
        signal(&child, end);
        lines.read_to_string(&mut said).unwrap();
        assert!(said.ends_with("everything has ended\n"), "{said}");
        let run = finish(child);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.stderr.contains("stopping"), "{run:?}");
        assert!(!socket.exists(), "the socket is left");
    }
}

#[test]
fn a_second_daemon_is_refused_with_the_way_out() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("run/xyd.sock");
    let servers = home.path().to_str().unwrap();
    let mut child = start_in(home.path(), &socket, &["up", servers]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("Ctrl-C") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    let second = finish(start_in(home.path(), &socket, &["up", servers]));
    assert_eq!((second.code, second.text()), (Some(1), ""));
    let pid = format!("(pid {})", child.id());
    assert!(second.stderr.starts_with("error: ") && second.stderr.contains(&pid), "{second:?}");
    assert!(second.stderr.contains("hint: `xyctl list`"), "{second:?}");
    signal(&child, Signal::SIGTERM);
    assert_eq!(finish(child).code, Some(0));
}

#[test]
fn a_rejected_file_is_reported_once() {
    let home = tempfile::tempdir().unwrap();
    let (servers, socket) = (home.path().join("servers"), home.path().join("run/xyd.sock"));
    std::fs::create_dir(&servers).unwrap();
    std::fs::write(servers.join("bad.ron"), "Process(comand: \"x\")").unwrap();
    let mut child = start_in(home.path(), &socket, &["up", servers.to_str().unwrap()]);
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("comand") {
        assert_ne!(errors.read_line(&mut said).unwrap(), 0, "{said}");
    }
    signal(&child, Signal::SIGTERM);
    errors.read_to_string(&mut said).unwrap();
    assert_eq!(said.matches("bad.ron").count(), 1, "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
