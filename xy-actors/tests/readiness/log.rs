//! Processes that are ready when a line of their output says so.

use std::time::Duration;

use xy_actors::exit::Cause;
use xy_actors::log::LogSettings;
use xy_actors::policy::State;
use xy_actors::process::readiness::LogPattern;
use xy_actors::process::{ProcessSpec, Readiness, process};
use xy_actors::spec::{ChildSpec, SupervisorSpec};
use xy_actors::supervisor::Supervisor;
use xy_actors::testkit::TestTree;

use crate::support::{Place, script, web, within, word};

fn logging(pattern: &str, text: &str) -> ProcessSpec {
    let pattern = LogPattern::new(pattern).expect("a pattern");
    ProcessSpec { ready: Some(Readiness::Log { pattern }), ..script(text) }
}

fn shell(pattern: &str, text: &str) -> ProcessSpec {
    let args = vec!["-c".to_owned(), text.to_owned()];
    ProcessSpec { command: "sh".to_owned(), args, ..logging(pattern, "") }
}

#[tokio::test]
async fn a_matching_line_on_either_stream_is_ready_and_no_other() {
    for step in ["print", "print-err"] {
        let place = Place::new();
        let go = place.path("go");
        let text = format!("{step} almost wait-for {} {step} listening-on-8421 sleep-forever", word(&go));
        let mut web = place.web(logging(r"listening-on-\d+", &text)).await;
        web.waits_for(r"a line of output that matches `listening-on-\d+`").await;
        web.logs("almost").await;
        assert_eq!(web.info().await.state, State::Starting);
        place.touch("go");
        web.ready().await;
        web.end().await;
    }
}

#[tokio::test]
async fn a_line_written_in_pieces_is_one_line() {
    let place = Place::new();
    let mut web = place
        .web(shell("^server ready$", "printf 'server '; sleep 0.2; printf 'ready\\r\\n'; sleep 600"))
        .await;
    web.ready().await;
    web.end().await;
}

#[tokio::test]
async fn a_match_is_not_looked_for_across_lines() {
    let place = Place::new();
    let mut web = place.web(shell("server ready", "printf 'server\\n ready\\n'; echo end; sleep 600")).await;
    web.logs("end").await;
    assert_eq!(web.info().await.state, State::Starting);
    let log = place.logs.clone();
    log.flush().await;
    assert!(web.tree.happened().iter().all(|event| event != "child_ready web"));
    web.end().await;
}

#[tokio::test]
async fn the_line_is_found_before_and_behind_more_output_than_memory_holds() {
    for text in ["print ready write 20000 sleep-forever", "write 20000 print ready write 20000 sleep-forever"]
    {
        let place = Place::new();
        let log = LogSettings { buffer: 1024, ..LogSettings::default() };
        let child = process(logging("^ready$", text), &place.host, &place.logs).log(log);
        let supervisor =
            Supervisor::builder(SupervisorSpec::default()).child(web(), child).spawn().await.expect("spawns");
        let mut tree = TestTree::new(supervisor);
        within("it is ready", tree.expect("child_ready", "web")).await;
        within("it ends", tree.shutdown()).await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_hide_nothing() {
    let place = Place::new();
    let text = "head -c 70000 /dev/zero; printf '\\377\\376 ready \\000\\n'; sleep 600";
    let mut web = place.web(shell("ready", text)).await;
    web.ready().await;
    web.end().await;
}

#[tokio::test]
async fn a_line_of_one_incarnation_does_not_make_the_next_one_ready() {
    let place = Place::new();
    let (once, go) = (place.path("once"), place.path("go"));
    let text = format!(
        "if [ -e {0} ]; then echo second; while :; do sleep 1; done; fi; touch {0}; echo ready; \
         while ! [ -e {1} ]; do sleep 0.05; done; echo ready; exit 1",
        word(&once),
        word(&go)
    );
    let mut web = place.web(shell("^ready$", &text)).await;
    web.ready().await;
    place.touch("go");
    web.expect("child_exited").await;
    web.logs("second").await;
    let info = web.info().await;
    assert_eq!((info.state, info.ready, info.incarnation.get()), (State::Starting, false, 2));
    web.end().await;
}

#[tokio::test]
async fn a_line_that_never_comes_times_out_with_the_pattern_named() {
    let place = Place::new();
    let child = ChildSpec { start_timeout: Some(Duration::from_secs(1)), ..web() };
    let mut web = place.web_with(child, logging("up and running", "print no sleep-forever")).await;
    web.expect("child_start_failed").await;
    let Cause::StartTimeout { message } = web.last_exit().await.report.cause.clone() else {
        panic!("no start timeout")
    };
    assert_eq!(message, "a line of output that matches `up and running`");
    web.end().await;
}
