//! xyd beside other supervisors of processes, and beside the least that a C program can do: figures, and conduct.
//!
//! `benches/peers/run` builds what this needs and starts it. Every subject runs the same child, which notes the monotonic
//! clock as the first thing in its main function; the subjects take turns. Printed are two Markdown tables.

mod commands;
mod conduct;
mod notes;
mod processes;
mod run;
mod speed;
mod subject;
mod table;

use std::path::PathBuf;

use crate::subject::{Places, Subject};
use crate::table::Figures;

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut next = || arguments.next().expect("three directories: of C programs, of own programs, of peers");
    let places = Places { built: next(), own: next(), peers: next() };
    let setting = |name: &str| std::env::var(name).ok();
    let rounds: usize = setting("ROUNDS").map_or(3, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let only = setting("ONLY");
    let parts =
        setting("PARTS").unwrap_or_else(|| "rounds,empty,idle,loop,capture,commands,conduct".to_owned());
    let has = |part: &str| parts.split(',').any(|known| known == part);
    // What a dead supervisor leaves is then found below this process.
    nix::sys::prctl::set_child_subreaper(true).expect("the system can do it");

    let chosen = |subject: &Subject| {
        only.as_ref().is_none_or(|only| only.split(',').any(|name| name == subject.name()))
            && subject.program(&places).exists()
    };
    let subjects: Vec<Subject> = Subject::ALL.into_iter().filter(chosen).collect();
    let known = Subject::ALL.iter().chain([&Subject::Circus]);
    let missing = known.filter(|subject| !subject.program(&places).exists());
    let missing: Vec<&str> = missing.map(|subject| subject.name()).collect();
    let columns =
        subjects.iter().map(|subject| format!(" {} {} |", subject.name(), subject.version(&places)));
    let header: String = columns.collect();

    let mut figures = Figures::default();
    for round in 0..if has("rounds") { rounds } else { 0 } {
        eprintln!("round {} of {rounds}", round + 1);
        speed::round(&subjects, &places, round == 0, &mut figures);
    }
    if has("empty") && subjects.contains(&Subject::Xyd) {
        speed::empty(&places, &mut figures);
    }
    if has("idle") {
        eprintln!("idle");
        speed::idle(&subjects, &places, &mut figures);
    }
    if has("loop") {
        eprintln!("crash loop");
        speed::crash_loop(&subjects, &places, &mut figures);
    }
    for round in 0..if has("capture") { rounds } else { 0 } {
        eprintln!("log capture, round {} of {rounds}", round + 1);
        speed::capture(&subjects, &places, &mut figures);
    }
    if !figures.is_empty() {
        figures.print(&subjects, &header);
    }
    if has("commands") {
        let peers: Vec<Subject> = Subject::LISTING.into_iter().filter(chosen).collect();
        let mut commands = Figures::default();
        for round in 0..rounds {
            eprintln!("commands, round {} of {rounds}", round + 1);
            commands::round(&peers, &places, round == 0, &mut commands);
        }
        let columns = peers.iter().map(|peer| format!(" {} {} |", peer.name(), peer.version(&places)));
        if !figures.is_empty() {
            println!();
        }
        commands.print(&peers, &columns.collect::<String>());
        println!("\n{}", commands::sizes(&places));
    }
    if has("conduct") {
        eprintln!("conduct");
        let peers: Vec<Subject> = subjects.into_iter().filter(|subject| *subject != Subject::Limit).collect();
        let answers: Vec<Vec<String>> = peers.iter().map(|peer| conduct::of(*peer, &places)).collect();
        let columns = peers.iter().map(|peer| format!(" {} {} |", peer.name(), peer.version(&places)));
        if !figures.is_empty() {
            println!();
        }
        println!("| scenario |{}", columns.collect::<String>());
        println!("|---|{}", "---|".repeat(peers.len()));
        for (row, title) in conduct::ROWS.iter().enumerate() {
            let cells: Vec<&str> = answers.iter().map(|answers| answers[row].as_str()).collect();
            println!("| {title} | {} |", cells.join(" | "));
        }
    }
    if !missing.is_empty() {
        println!("\nNot here, since `benches/peers/setup` could not fetch them: {}.", missing.join(", "));
    }
}
