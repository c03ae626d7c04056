//! Significant children and auto-shutdown.

use xy_actors::exit::Exit;
use xy_actors::policy::Operation;
use xy_actors::spec::{AutoShutdown, ChildSpec, RestartType, Strategy, SupervisorSpec};

use crate::harness::{World, child, flags};

fn significant(id: &str, restart: RestartType) -> ChildSpec {
    ChildSpec { significant: true, ..child(id, restart) }
}

fn world(auto_shutdown: AutoShutdown, strategy: Strategy, children: Vec<ChildSpec>) -> World {
    World::started(SupervisorSpec { auto_shutdown, ..flags(strategy, 5, 3600) }, children)
}

#[test]
fn a_temporary_significant_child_triggers_with_any_exit() {
    for exit in [Exit::Normal, Exit::Abnormal, Exit::Killed] {
        let children = vec![significant("a", RestartType::Temporary), child("b", RestartType::Temporary)];
        let mut world = world(AutoShutdown::AnySignificant, Strategy::OneForOne, children);
        world.happened();
        world.exits("a", exit);
        assert_eq!(
            (world.happened().as_str(), world.end),
            ("stop b", Some((Exit::Shutdown, None))),
            "{exit}"
        );
    }
}

#[test]
fn a_transient_significant_child_triggers_only_when_it_is_not_restarted() {
    for (exit, ends) in
        [(Exit::Normal, true), (Exit::Shutdown, true), (Exit::Abnormal, false), (Exit::Killed, false)]
    {
        let children = vec![significant("a", RestartType::Transient)];
        let mut world = world(AutoShutdown::AnySignificant, Strategy::OneForOne, children);
        world.exits("a", exit);
        assert_eq!(world.end.is_some(), ends, "{exit}");
    }
}

#[test]
fn all_significant_waits_for_the_last_one() {
    let children = vec![significant("a", RestartType::Transient), significant("b", RestartType::Transient)];
    let mut world = world(AutoShutdown::AllSignificant, Strategy::OneForOne, children);
    world.exits("a", Exit::Normal);
    assert_eq!(world.end, None);
    world.exits("b", Exit::Normal);
    assert_eq!(world.end, Some((Exit::Shutdown, None)));
}

#[test]
fn a_child_stopped_by_hand_does_not_trigger_and_is_not_left() {
    let children =
        || vec![significant("a", RestartType::Transient), significant("b", RestartType::Transient)];
    let mut first = world(AutoShutdown::AllSignificant, Strategy::OneForOne, children());
    first.ask(Operation::TerminateChild(first.key("a")));
    first.exits("b", Exit::Normal);
    assert!(first.end.is_some(), "a child stopped by hand is not left");
    let mut second = world(AutoShutdown::AllSignificant, Strategy::OneForOne, children());
    second.exits("b", Exit::Normal);
    second.ask(Operation::TerminateChild(second.key("a")));
    assert!(second.end.is_none(), "a stop by hand does not trigger");
}

#[test]
fn being_stopped_by_a_siblings_restart_does_not_trigger() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
            let children = vec![
                significant("a", RestartType::Transient),
                child("b", RestartType::Transient),
                significant("c", RestartType::Transient),
            ];
            let mut world = world(auto_shutdown, strategy, children);
            world.exits("b", Exit::Killed);
            assert_eq!(world.end, None, "{strategy:?} {auto_shutdown:?}");
        }
    }
}

#[test]
fn without_auto_shutdown_nothing_triggers() {
    let children = vec![child("a", RestartType::Temporary), child("b", RestartType::Transient)];
    let mut world = world(AutoShutdown::Never, Strategy::OneForOne, children);
    world.exits("a", Exit::Normal);
    world.exits("b", Exit::Normal);
    assert_eq!(world.end, None);
}
