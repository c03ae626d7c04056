//! Processes that tell themselves that they are ready.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use xy_actors::exit::Cause;
use xy_actors::policy::State;
use xy_actors::process::{HostOptions, ProcessHost, ProcessSpec, Readiness};
use xy_actors::spec::ChildSpec;

use crate::support::{Place, script, until, web, word};

fn notifying(text: &str) -> ProcessSpec {
    ProcessSpec { ready: Some(Readiness::Notify { fd: None }), ..script(text) }
}

fn descriptor(fd: u16, text: &str) -> ProcessSpec {
    ProcessSpec { ready: Some(Readiness::Notify { fd: Some(fd) }), ..script(text) }
}

#[tokio::test]
async fn a_process_is_ready_when_it_says_so_and_not_before() {
    let place = Place::new();
    let go = place.path("go");
    let spec =
        notifying(&format!("notify STATUS=loading wait-for {} notify READY=1 sleep-forever", word(&go)));
    let mut web = place.web(spec).await;
    web.waits_for("`READY=1` from the process, which says: loading").await;
    place.touch("go");
    web.ready().await;
    web.end().await;
    assert_eq!(place.sockets().len(), 0, "its socket went with it");
}

#[tokio::test]
async fn any_process_of_its_tree_may_speak_for_it() {
    for step in ["spawn 3 notify READY=1 sleep-forever", "spawn-setsid 3 notify READY=1 sleep-forever"] {
        let place = Place::new();
        let mut web = place.web(notifying(&format!("{step} sleep-forever"))).await;
        web.ready().await;
        web.end().await;
    }
}

#[tokio::test]
async fn a_process_of_another_user_is_heard_though_it_cannot_enter_our_directories() {
    if !nix::unistd::geteuid().is_root() {
        // Nobody else can become somebody.
        return;
    }
    let place = Place::new();
    let program = tempfile::tempdir().expect("a directory");
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let mut spec = notifying("notify READY=1 sleep-forever");
    let copy = program.path().join("child");
    fs::copy(&spec.command, &copy).expect("copied");
    spec.command = copy.to_str().expect("a path in words").to_owned();
    spec.settings.user = Some("daemon".to_owned());
    let mut web = place.web(spec).await;
    web.ready().await;
    web.end().await;
}

#[tokio::test]
async fn a_stranger_is_not_heard() {
    let place = Place::new();
    let go = place.path("go");
    let mut web = place.web(notifying(&format!("wait-for {} notify READY=1 sleep-forever", word(&go)))).await;
    web.waits_for("READY=1").await;
    let socket = place.sockets().pop().expect("a socket");
    let stranger = UnixDatagram::unbound().expect("a socket");
    stranger.send_to(b"READY=1", &socket).expect("sent");
    web.logs("from a process that is not ours").await;
    assert_eq!(web.info().await.state, State::Starting);
    place.touch("go");
    web.ready().await;
    web.end().await;
}

#[tokio::test]
async fn hostile_datagrams_change_nothing() {
    let place = Place::new();
    let go = place.path("go");
    let spec = notifying(&format!(
        "notify-bytes 65536 10 notify-bytes 5000 65 notify-bytes 0 0 notify-bytes 3 255 notify READY=0 notify = \
         notify STATUS=\u{1b}[31mred wait-for {} notify MAINPID=1;FDSTORE=1;READY=1 sleep-forever",
        word(&go)
    ));
    let mut web = place.web(spec).await;
    web.logs("more than 4 KiB").await;
    web.waits_for("which says:  [31mred").await;
    place.touch("go");
    web.ready().await;
    web.logs("`MAINPID` is ignored").await;
    web.logs("`FDSTORE` is ignored").await;
    web.end().await;
}

#[tokio::test]
async fn a_flood_is_slowed_down_and_nothing_of_it_is_lost() {
    let place = Place::new();
    let flood = "notify STATUS=again ".repeat(1000);
    let mut web = place.web(notifying(&format!("{flood} notify READY=1 sleep-forever"))).await;
    web.ready().await;
    assert!(web.lines().len() < 20, "{:?}", web.lines());
    web.end().await;
}

#[tokio::test]
async fn what_is_told_after_ready_is_kept_in_the_log() {
    let place = Place::new();
    let mut web = place
        .web(notifying("notify READY=1 notify STATUS=serving sleep 300 notify STOPPING=1 sleep-forever"))
        .await;
    web.ready().await;
    web.logs("status: serving").await;
    web.logs("says that it is stopping").await;
    web.end().await;
}

#[tokio::test]
async fn more_time_to_start_is_granted() {
    let place = Place::new();
    let child = ChildSpec { start_timeout: Some(Duration::from_secs(2)), ..web() };
    let spec = notifying("notify EXTEND_TIMEOUT_USEC=60000000 sleep 3000 notify READY=1 sleep-forever");
    let mut web = place.web_with(child, spec).await;
    web.ready().await;
    assert_eq!(web.info().await.incarnation.get(), 1);
    web.end().await;
}

#[tokio::test]
async fn one_that_never_says_so_times_out_with_its_last_words() {
    let place = Place::new();
    let child = ChildSpec { start_timeout: Some(Duration::from_secs(3)), ..web() };
    let mut web = place.web_with(child, notifying("notify STATUS=stuck sleep-forever")).await;
    web.expect("child_start_failed").await;
    let Cause::StartTimeout { message } = web.last_exit().await.report.cause.clone() else {
        panic!("no start timeout")
    };
    assert_eq!(message, "`READY=1` from the process, which says: stuck");
    web.end().await;
}

#[tokio::test]
async fn each_incarnation_has_a_socket_of_its_own() {
    let place = Place::new();
    let go = place.path("go");
    let spec = notifying(&format!("notify READY=1 wait-for {} exit 1", word(&go)));
    let mut web = place.web(spec).await;
    web.ready().await;
    let first = place.sockets();
    place.touch("go");
    web.expect("child_exited").await;
    until("the first socket is gone", async || !place.sockets().contains(&first[0])).await;
    web.end().await;
}

#[tokio::test]
async fn without_a_directory_for_sockets_the_start_says_what_is_missing() {
    let mut place = Place::new();
    place.host = ProcessHost::start(HostOptions::default()).expect("a host starts").0;
    let mut web = place.web(notifying("sleep-forever")).await;
    web.expect("child_start_failed").await;
    let cause = web.last_exit().await.report.cause.to_string();
    assert!(cause.contains("set `notify_dir`"), "{cause}");
    web.end().await;
}

#[tokio::test]
async fn a_newline_on_the_declared_descriptor_is_ready() {
    for fd in [3, 7, 42] {
        let place = Place::new();
        let go = place.path("go");
        let text = format!("print-fds wait-for {} notify-fd {fd} x sleep-forever", word(&go));
        let mut web = place.web(descriptor(fd, &text)).await;
        web.waits_for(&format!("a newline on descriptor {fd}")).await;
        web.logs(&format!("fds 0 1 2 {fd}")).await;
        place.touch("go");
        web.ready().await;
        web.end().await;
    }
}

#[tokio::test]
async fn a_descriptor_closed_without_a_newline_is_told() {
    let place = Place::new();
    let mut spec = descriptor(3, "");
    spec.command = "sh".to_owned();
    spec.args = vec!["-c".to_owned(), "printf almost >&3; exec 3>&-; sleep 600".to_owned()];
    let web = place.web(spec).await;
    web.waits_for("descriptor 3 of the process, closed without a newline").await;
    web.end().await;
}

#[tokio::test]
async fn a_standard_descriptor_cannot_tell_readiness() {
    let place = Place::new();
    let mut web = place.web(descriptor(2, "sleep-forever")).await;
    web.expect("child_start_failed").await;
    let cause = web.last_exit().await.report.cause.to_string();
    assert!(cause.contains("descriptor 2 cannot tell readiness"), "{cause}");
    web.end().await;
}
