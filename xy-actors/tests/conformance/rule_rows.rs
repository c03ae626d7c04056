//! The rules of OTP that were observed by running it: what each says, what xy makes of it, and the tests that would fail
//! if xy broke it.
//!
//! `own` declares the test of the rule's name, which runs the function of that name in `rules.rs`; any other rule names
//! tests of rows. Several small tests of one rule are as good as one, as long as each part of the rule has its own.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::rows::{self, Verdict, row_test, verdict};

struct Rule {
    key: &'static str,
    /// What OTP does, in words.
    claim: &'static str,
    verdict: Verdict,
    /// Group and name of each test.
    tests: &'static [(&'static str, &'static str)],
}

macro_rules! tests {
    ($key:ident none) => {
        &[]
    };
    ($key:ident own $clock:ident) => {
        &[("rules", stringify!($key))]
    };
    ($key:ident $($group:ident::$case:ident)+) => {
        &[$((stringify!($group), stringify!($case))),+]
    };
}

macro_rules! own_test {
    ($key:ident own $clock:ident) => {
        row_test!(rules $key $clock same);
    };
    ($key:ident $($elsewhere:tt)*) => {};
}

macro_rules! rules {
    ($($key:ident [$($tests:tt)*] $claim:literal $verdict:ident $($words:literal)?;)*) => {
        const RULES: &[Rule] = &[$(
            Rule {
                key: stringify!($key),
                claim: $claim,
                verdict: verdict!($verdict $($words)?),
                tests: tests!($key $($tests)*),
            },
        )*];

        $(own_test!($key $($tests)*);)*
    };
}

rules! {
    a_kill_is_abnormal [topics::killed_is_abnormal] "`normal` and `shutdown` are clean exits, every other reason is abnormal, a kill too." same;

    children_start_one_at_a_time [rules::blocking_start] "Children start one at a time, in order; while a start runs, the supervisor serves no call and sees no exit." adapted "A start holds up the later ones and nothing else: every call is answered and every exit seen meanwhile";
    a_start_gives_one_of_four [answers::extra_return start::sup_start_ignore_child start::sup_start_child_returns_error start::sup_start_child_returns_error_simple] "A start gives a child, a child with a value for whoever asked, `ignore` or an error; whatever else it gives or throws is an error." adapted "Types rule out all but a panic, which is a failed start";
    a_failed_first_start_unwinds [topics::unwinding_order_of_a_failed_start start::sup_start_fail tree::faulty_application_shutdown] "A first start that fails is not tried again: the earlier children stop in reverse, the later are never tried, and the error names the child." same;
    an_ignored_child_is_kept_unless_temporary [start::sup_start_ignore_child start::sup_start_ignore_temporary_child start::sup_start_ignore_temporary_child_start_child start::sup_start_ignore_permanent_child_start_child_simple] "A child that ignores its start is kept without a process, and the start goes on; a temporary one and one of simple_one_for_one is dropped." same;
    specs_are_checked_first [topics::duplicate_ids_are_refused_before_anything_starts answers::child_specs answers::sup_flags start::sup_start_normal] "Specs are checked before any child starts: unique ids, a period above 0; intensity 0, shutdown 0 and an empty list are legal; simple_one_for_one takes exactly one spec." adapted "Types rule out the rest; the one spec of simple_one_for_one is a template beside it, which comes with each start";

    stops_go_one_by_one_in_reverse [restart::order_of_children topics::sequential_and_parallel_stop_time tree::simple_global_supervisor] "Children stop in reverse start order, each gone before the next is asked." same;
    a_stop_asks_waits_and_kills_as_its_child_says [own timed] "A child is asked and killed at its timeout, never killed with infinity, and never asked with brutal_kill." adapted "Killed means aborted at the next await point, or reported as leaked after `kill_timeout`; OTP waits without limit";
    unclean_stops_are_reported [topics::which_stops_are_reported_as_unclean] "A stop is reported as unclean after a crash or a kill at the timeout, and with a permanent child also after `normal`." adapted "A child that ends normally after it was asked has shut down, whatever its restart type";
    an_exit_during_a_stop_is_part_of_it [topics::an_exit_during_a_stop_is_consumed stop::sup_stop_race topics::two_children_dead_at_once] "The exit of a child that is being stopped is neither restarted nor counted, also if it died before it was asked." same;
    a_child_can_remove_its_link [rules::unlinked_child] "The crash of a child that removed its link goes unnoticed: it stays listed as running; terminate_child works all the same." adapted "Only an actor has a link; it goes on counting as active";
    a_pool_ends_although_a_restart_is_pending [own still] "simple_one_for_one drops what waits for a restart when it ends." same;
    a_pool_stops_its_children_together [topics::sequential_and_parallel_stop_time stop::simple_one_for_one_shutdown mistakes::a_report_names_every_child_that_had_to_be_killed dynamic::children_stop_together_each_at_its_own_deadline] "simple_one_for_one asks all children at once and kills what is left at one common deadline; failures are reported by reason and number." adapted "Each child has a spec and so a deadline of its own, and each failure is named";

    a_parents_wish_ends_a_supervisor [topics::who_can_end_a_supervisor later::stop_with_a_reason] "An exit signal of its parent, `normal` too, makes a supervisor stop its children in reverse and exit with the same reason." adapted "There are no exit signals: the parent or whoever holds a handle asks";
    what_is_no_child_ends_nothing [own still] "Exits of processes that are not its children mean nothing to a supervisor, linked or not." adapted "There are no exit signals; an actor that links itself to a supervisor is no child of it";
    a_killed_supervisor_takes_its_subtree_along [topics::killing_a_supervisor_reaches_its_whole_subtree tree::simple_global_supervisor topics::a_supervisor_that_panics_is_a_crash_to_its_parent] "A killed supervisor stops nothing; its children die by their links, and those that trap exits have to end themselves." adapted "All below it is killed from the bottom, so nothing outlives it";
    giving_up_stops_the_others_in_reverse [topics::giving_up_is_reported_in_order topics::exact_intensity_boundary] "A supervisor over its intensity leaves the failing child down, stops the others in reverse and exits `shutdown`." adapted "It ends `Escalated`";
    a_supervisor_that_was_stopped_is_restarted_and_counted [own still] "A supervisor can be stopped with any reason; to its parent that is an exit like others, restarted and counted if permanent." same;
    a_supervisor_gets_only_calls_it_knows [none] "An unknown call crashes the supervisor." not_applicable "Messages are typed, so that no unknown one can be sent";

    restart_type_and_exit_decide_together [own still] "Permanent children are restarted after any exit, transient ones after an abnormal one and kept otherwise, temporary ones dropped; clean exits of the latter two are not reported." adapted "Each exit is an event that says what follows, so a clean one is told too";
    only_restarts_count [topics::uncounted_ends topics::manual_restart_does_not_count] "Only an automatic restart counts: no end that is not restarted, and no start, stop or restart by hand." same;
    a_transient_supervisor_that_gave_up [topics::transient_supervisor_over_its_intensity] "A transient supervisor that gave up is taken for one that ended well: not restarted, not reported." adapted "`Escalated` is abnormal: it is restarted";
    nesting_multiplies [topics::nesting_multiplies_the_intensities] "With intensities I1 above I2 a worker is started (I1 + 1) * (I2 + 1) times before the top gives up." same;

    intensity_is_the_number_of_restarts_allowed [topics::exact_intensity_boundary mistakes::intensity_and_period_are_heeded] "As many restarts as the intensity are allowed in a period, one more is fatal; with 0 the first crash is." adapted "It ends `Escalated`";
    the_window_includes_its_edge [topics::window_arithmetic restart::multiple_restarts] "Restarts are kept by whole seconds and the window includes its edge, so that it is up to a second longer than the period." adapted "Exact times; the edge still counts";
    slow_stops_stretch_the_window [topics::slow_stops_and_the_window] "The time of a restart is taken before siblings stop and start, so slow stops spread restarts out." same;
    each_attempt_counts_once_for_its_group [topics::two_children_dead_at_once topics::retry_count_and_pacing restart::one_for_all_escalation restart::rest_for_one] "Each automatic attempt counts, a group as one; of two children dead at once the second counts in one_for_one and not in one_for_all." same;
    the_cheaper_check_answers_alike [later::intensity_check_is_unchanged topics::window_arithmetic] "Later releases check the intensity faster and decide as before." same;

    one_for_one_keeps_the_place [restart::one_for_one topics::position_of_a_readded_temporary] "one_for_one restarts just that child, in its place." same;
    rest_for_one_takes_the_later_along [restart::rest_for_one restart::order_of_children] "rest_for_one stops what started after the child, newest first, then starts it and those in order; earlier ones are not touched." same;
    one_for_all_stops_the_newest_first_and_starts_in_order [own still] "one_for_all stops all others, newest first, then starts all in order." same;
    a_group_brings_back_all_but_temporary_ones [topics::siblings_at_rest_come_back_with_their_group topics::temporary_sibling_of_a_group restart::temporary_bystander] "A group restart starts every member that is not temporary, also what was terminated, had ended or had ignored; temporary ones are removed." same;
    a_failed_attempt_is_repeated_at_once [topics::retry_count_and_pacing restart::one_for_one_escalation topics::giving_up_is_reported_in_order] "A start that always fails runs 1 + intensity times, without any delay, and then the supervisor gives up." adapted "Without a backoff, which is the default; a child's spec can ask for one";
    calls_are_served_between_attempts [own still] "Between two attempts the supervisor serves the calls that wait." same;
    a_partial_restart_is_resumed_by_its_strategy [topics::partial_restart_failure restart::one_for_all_other_child_fails_restart restart::rest_for_one_other_child_fails_restart answers::hanging_restart_loop_rest_for_one] "When a member fails in a group restart, one_for_all stops what the round has started and begins anew, rest_for_one goes on with the member that failed." same;
    an_ignored_restart_counts_and_rests [topics::ignore_on_an_automatic_restart restart::simple_one_for_one_restart_ignore] "A child that ignores an automatic restart rests, and the restart has counted; simple_one_for_one drops it." same;
    a_pools_child_comes_back_with_its_own_arguments [dynamic::common_arguments_go_before_each_childs_own dynamic::a_key_works_while_its_child_restarts scale::do_not_save_start_parameters_for_temporary_children] "A child of simple_one_for_one is restarted with its own arguments and is known by its old pid until then; those of temporary ones are not kept." adapted "A key that stays the same instead of the pid";
    an_attempt_that_was_called_off_is_not_made [own still] "An attempt that waits for its turn is not made if its child was terminated or started by hand meanwhile." same;

    calls_about_a_child_answer_by_its_state [own still] "child_spec and which_child answer in every state, an unknown id is not_found; restart_child passes `ignore` on." same;
    calls_for_a_child_answer_by_its_state [answers::child_adm answers::child_adm_simple topics::the_restarting_state_is_answered later::which_child start::sup_start_restart_child_returns_error start::sup_start_child_returns_error] "start, terminate, restart and delete of a child answer by its state: running, stopped, restarting, unknown, or one of simple_one_for_one." adapted "A key names a child in every strategy, where OTP takes an id in some and a pid in others";
    the_newest_goes_last [answers::already_started_outside_supervisor topics::position_of_a_readded_temporary] "What a start says of a name that is taken is passed on bare; a child added goes last, one added again too." adapted "The start's own words are passed on, beside the child's id";
    a_handle_of_a_child_that_is_gone [answers::child_adm answers::child_adm_simple answers::dead_keys_are_answered_by_what_is_asked] "A pid is an unknown id to ordinary strategies; simple_one_for_one takes a dead pid for ended and refuses a living stranger." adapted "Keys instead of pids: one that was given stands for its child, one that never was is not_found";
    listing_and_counts [restart::order_of_children tree::tree answers::child_adm_simple scale::count_children] "Children are listed newest first; specs, supervisors and workers count every child, active only those alive; simple_one_for_one counts one spec." adapted "Oldest first, which is the start order";
    counts_stay_right_after_a_cancelled_restart [topics::restarting_children_of_a_pool_are_counted_right] "Terminating a restarting child of simple_one_for_one leaves one active child too few." adapted "That is a fault; counts stay right";
    a_temporary_childs_spec_has_no_arguments [scale::do_not_save_start_parameters_for_temporary_children start::sup_start_map_simple] "The spec of a temporary child is shown without its arguments." adapted "No spec holds any; they are the recipe's and go with the child";

    significant_needs_a_fitting_mode [answers::child_specs_map significant::significant_simple] "Refused: a significant child that is permanent or under `never`, and auto_shutdown with simple_one_for_one." same;
    significant_children_trigger_by_ending_for_good [significant::significant_temporary significant::significant_transient] "A significant child triggers when it ends by itself and is not restarted: a transient one that ends well, a temporary one in any way." same;
    neither_a_stop_by_hand_nor_an_ignored_start_triggers [own still] "Being terminated and ignoring a start are no triggers." same;
    a_bystander_does_not_trigger [significant::significant_bystander] "Being stopped by a sibling's restart is no trigger." same;
    a_significant_child_that_restarts_is_left [own timed] "all_significant waits for each significant child that runs or restarts." same;
    all_significant_waits_for_none_at_rest [topics::all_significant_with_a_hand_stopped_member topics::an_ignored_significant_child_is_not_left] "all_significant does not wait for one stopped by hand or ignored, and only a trigger ends the supervisor, not the absence of significant children." same;
    auto_shutdown_stops_the_rest_in_reverse [significant::significant_temporary significant::significant_escalation] "Auto-shutdown stops the rest in reverse and exits `shutdown`, a clean end to the parent." same;

    reports_follow_a_fixed_order [topics::giving_up_is_reported_in_order ended::format_log_2] "The crash, each failed attempt and the limit are reported in this order, with supervisor, context, reason and child." adapted "As fields of numbered events; clean ends are events too";
}

/// How many rules there are: each of OTP's rules that a run has confirmed.
const COUNT: usize = 53;

/// Each rule is listed once and has tests that exist and run, or a reason.
#[test]
fn no_rule_is_skipped() {
    assert_eq!(RULES.len(), COUNT);
    let keys: BTreeSet<&str> = RULES.iter().map(|rule| rule.key).collect();
    assert_eq!(keys.len(), COUNT, "two rules have one name");
    for Rule { key, claim, verdict, tests } in RULES {
        assert!(!claim.is_empty());
        let applies = match verdict {
            Verdict::Same => true,
            Verdict::Adapted(how) => !how.is_empty(),
            Verdict::NotApplicable(why) => {
                assert!(!why.is_empty() && tests.is_empty(), "{key}");
                continue;
            }
        };
        assert!(applies && !tests.is_empty(), "{key}");
        for (group, case) in *tests {
            assert!(
                (*group, *case) == ("rules", *key) || rows::is_tested(group, case),
                "{key}: {group}::{case}"
            );
        }
    }
}

/// Returns the rules' section of the page.
pub(crate) fn section() -> String {
    let counts = rows::counts(RULES.iter().map(|rule| &rule.verdict));
    let mut section = format!(
        "\n## Rules\n\nWhat OTP was observed to do, rule by rule. {counts}\n\n\
         | # | rule | what OTP does | in xy | tests |\n|---|---|---|---|---|\n"
    );
    for (number, Rule { key, claim, verdict, tests }) in (1..).zip(RULES) {
        let tests: Vec<String> = tests.iter().map(|(_, case)| format!("`{case}`")).collect();
        let written =
            writeln!(section, "| R{number} | `{key}` | {claim} | {verdict} | {} |", tests.join(", "));
        written.expect("a string takes everything");
    }
    section
}
