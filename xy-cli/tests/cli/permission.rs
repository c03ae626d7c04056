//! What operators say to requests that ask, with a real daemon and its rules.

use crate::real::RealDaemon;
use crate::xyctl::finish;

#[test]
fn a_request_that_asks_is_listed_approved_remembered_and_forgotten() {
    let rules = r#"(permissions: [(decision: Ask, client: "xyctl", action: "pause")])"#;
    let nap = r#"Process(command: "sleep", args: ["1000"])"#;
    let daemon = RealDaemon::start_with(rules, &[("nap", nap)]);
    let asked = || {
        let paused = daemon.spawn(&["pause", "nap", "--reason", "backup"]);
        // It waits for the answer, so that there is no hurry.
        let id = loop {
            let list = daemon.json(&["approvals"]);
            if let Some(id) = list["approvals"][0]["id"].as_str() {
                break id.to_owned();
            }
        };
        (paused, id)
    };
    let (paused, id) = asked();
    let shown = daemon.xyctl(&["approvals"]);
    assert!(shown.text().contains("pause") && shown.text().contains("backup"), "{shown:?}");
    daemon.xyctl(&["deny", &id, "--reason", "later"]).is(0, &format!("denied {id}\n"), "");
    let refused = finish(paused);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("denied by `xyctl`: later"), "{refused:?}");

    let (paused, id) = asked();
    let approved = daemon.xyctl(&["approve", &id, "--remember", "always"]);
    assert!(approved.text().starts_with(&format!("approved {id}, remembered as ")), "{approved:?}");
    assert_eq!(finish(paused).code, Some(0));
    assert_eq!(daemon.xyctl(&["pause", "nap"]).code, Some(0));

    let grants = daemon.json(&["grants"]);
    let grant = grants["grants"][0]["id"].as_str().expect("a grant").to_owned();
    assert!(daemon.xyctl(&["grants"]).text().contains(&grant));
    daemon.xyctl(&["forget", &grant]).is(0, &format!("forgotten {grant}\n"), "");
    let (paused, id) = asked();
    daemon.xyctl(&["approve", &id]).is(0, &format!("approved {id}\n"), "");
    assert_eq!(finish(paused).code, Some(0));
    daemon.xyctl(&["approve", "77"]).is(
        1,
        "",
        "error: parameter `id`: no request `77` waits for an answer, or it waits no more\n\
         hint: `xyctl approvals` lists what waits, and `xyctl grants` what is remembered\n",
    );
    let events = daemon.xyctl(&["events"]);
    assert!(
        events.text().contains("asks for `pause`") && events.text().contains("approved by xyctl"),
        "{events:?}"
    );
}
