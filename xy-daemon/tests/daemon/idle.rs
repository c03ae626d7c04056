//! The end of a daemon that nobody needs.

use std::fs;

use xy_daemon::protocol::method::{Version, VersionParams};

use super::support::{World, list, script, until, within};

#[tokio::test]
async fn a_daemon_ends_when_its_last_server_and_its_last_client_have_gone_and_not_before() {
    let mut world = World::new().argument("--idle-shutdown").argument("1ms");
    let (started, go) = (world.path("started"), world.path("go"));
    let steps = format!("touch {} wait-for {} exit 0", started.display(), go.display());
    world.write("job", &script(&steps, ""));
    world.start();
    until("the server", || async { started.exists().then_some(()) }).await;
    // Nobody was connected for far longer than that, and it is there all the same.
    let client = world.connect().await;
    fs::write(&go, "").expect("written");
    until("the end of the server", || async {
        let servers = list(&client).await;
        servers[0].pid.is_none().then_some(())
    })
    .await;
    within("version", client.call::<Version>(VersionParams::default())).await.expect("a client keeps it");
    assert_eq!(world.has_ended(), None);
    drop(client);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert!(world.said().contains("nobody has needed this daemon for 1ms"), "{}", world.said());
}

#[tokio::test]
async fn the_configuration_says_it_too_and_an_upgrade_keeps_it() {
    let mut world = World::new();
    fs::write(world.path("config/xy/xyd.ron"), "(idle_shutdown: \"1ms\")").expect("written");
    let (started, go) = (world.path("started"), world.path("go"));
    let steps = format!("touch {} wait-for {} exit 0", started.display(), go.display());
    world.write("job", &script(&steps, ""));
    let client = world.boot().await;
    let upgraded = client.call::<xy_daemon::protocol::method::Upgrade>(Default::default());
    within("upgrade", upgraded).await.expect("it takes place");
    drop(client);
    until("the next program", || async { world.said().contains("taken over").then_some(()) }).await;
    fs::write(&go, "").expect("written");
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert!(world.said().contains("nobody has needed this daemon"), "{}", world.said());
}
