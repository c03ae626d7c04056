//! All rows: each case of OTP's suite, each topic it misses, what came after OTP 27, mistakes of other
//! ports, and what Elixir adds.
//!
//! A row that is the same as in OTP, or adapted, declares the test of its name here, which runs the function of that name
//! in the row's group. `still` says that no (virtual) time may pass in it, because none passes in OTP; `timed` that some
//! does.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::path::Path;

/// What xy makes of a row.
pub(crate) enum Verdict {
    Same,
    /// How it differs.
    Adapted(&'static str),
    /// Why it has no test.
    NotApplicable(&'static str),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => f.write_str("same"),
            Self::Adapted(how) => write!(f, "adapted: {how}"),
            Self::NotApplicable(why) => write!(f, "not applicable: {why}"),
        }
    }
}

struct Row {
    number: &'static str,
    case: &'static str,
    group: &'static str,
    /// What has to hold, in words.
    claim: &'static str,
    verdict: Verdict,
}

macro_rules! verdict {
    (same) => {
        $crate::rows::Verdict::Same
    };
    (adapted $how:literal) => {
        $crate::rows::Verdict::Adapted($how)
    };
    (not_applicable $why:literal) => {
        $crate::rows::Verdict::NotApplicable($why)
    };
}

macro_rules! row_test {
    ($group:ident $case:ident $clock:ident not_applicable) => {};
    ($group:ident $case:ident still $verdict:ident) => {
        #[tokio::test(start_paused = true)]
        async fn $case() {
            let before = tokio::time::Instant::now();
            crate::$group::$case().await;
            assert_eq!(before.elapsed(), std::time::Duration::ZERO, "time passed where none passes in OTP");
        }
    };
    ($group:ident $case:ident timed $verdict:ident) => {
        #[tokio::test(start_paused = true)]
        async fn $case() {
            crate::$group::$case().await;
        }
    };
}

pub(crate) use {row_test, verdict};

macro_rules! rows {
    ($($number:literal $group:ident $case:ident $clock:ident $claim:literal $verdict:ident $($words:literal)?;)*) => {
        const ROWS: &[Row] = &[$(
            Row {
                number: $number,
                case: stringify!($case),
                group: stringify!($group),
                claim: $claim,
                verdict: verdict!($verdict $($words)?),
            },
        )*];

        $(row_test!($group $case $clock $verdict);)*
    };
}

rows! {
    "1" start sup_start_normal still "An empty supervisor starts, and ends `shutdown` when asked." same;
    "2" start sup_start_ignore_init still "A supervisor with nothing to run answers `ignore`, and no exit is seen." adapted "A supervisor has no init; a child that decides to start none answers `Ignored`";
    "3" start sup_start_ignore_child still "The spec of an ignored child is kept and counted." same;
    "4" start sup_start_ignore_temporary_child still "The spec of an ignored temporary child is dropped." same;
    "5" start sup_start_ignore_temporary_child_start_child still "So it is when added by start_child." same;
    "6" start sup_start_ignore_temporary_child_start_child_simple still "simple_one_for_one keeps no ignored child." same;
    "7" start sup_start_ignore_permanent_child_start_child_simple still "Nor a permanent one, and it ends well afterwards." same;
    "8" start sup_start_error_return still "An init that returns junk is an error to whoever starts, and nothing leaks." adapted "A typed start cannot return junk; invalid specs of a nested supervisor are the start's error";
    "9" start sup_start_fail still "A crash in the init is an error to whoever starts, and nothing leaks." adapted "A panic in a start is a failed start with the panic's text";
    "10" start sup_start_child_returns_error still "A child that cannot start is an error that names it; its spec is dropped." same;
    "11" start sup_start_restart_child_returns_error still "A restart_child that fails keeps the spec and is not tried again." same;
    "12" start sup_start_child_returns_error_simple still "A simple_one_for_one child that cannot start is dropped." same;
    "13" start sup_start_map still "Specs are completed with OTP's defaults and can be read back." adapted "No modules list: there is no code loading";
    "14" start sup_start_map_simple still "The template's spec is read back through each child." adapted "By key instead of pid; a key that was never given is not_found";
    "15" start sup_start_map_faulty_specs still "Faulty specs are refused, naming the rule." adapted "Types rule out most; an empty id and one with `/` are refused";
    "16" stop sup_stop_infinity still "Infinite shutdown is legal for workers and supervisors." same;
    "17" stop sup_stop_timeout timed "An unresponsive child is killed at its timeout, and the others stop well." adapted "Killed means aborted at the next await point, or reported as leaked";
    "18" stop sup_stop_timeout_dynamic timed "The same under simple_one_for_one." adapted "Killed means the same as in row 17";
    "19" stop sup_stop_brutal_kill still "A brutally killed child is never asked." adapted "Killed means the same as in row 17";
    "20" stop sup_stop_brutal_kill_dynamic still "The same under simple_one_for_one, with ten." adapted "Killed means the same as in row 17";
    "21" stop sup_stop_race timed "Children that end on their own while others stop hold nothing up and are not restarted." same;
    "22" stop sup_stop_non_shutdown_exit_dynamic still "Whatever exit children answer a stop with, the supervisor ends `shutdown`." same;
    "23" answers child_adm still "start, terminate, restart, delete and count answer as in OTP in each state." adapted "A key names a child in every strategy; a call to an ended supervisor is an error";
    "24" answers child_adm_simple still "The same under simple_one_for_one." adapted "Keys instead of pids; ending a child that is gone already is no error, as in OTP";
    "25" answers extra_return still "What a start hands back reaches whoever started the child." adapted "A typed optional value";
    "26" answers child_specs still "All combinations of valid fields are accepted, duplicate ids refused." adapted "Types rule out invalid fields; a template is a value of its own, so there is always exactly one";
    "27" answers child_specs_map still "Significant needs auto_shutdown and a child that can end." adapted "Types rule out invalid fields; the matrix is tested in full";
    "28" answers sup_flags still "Intensity 0 is legal, period 0 is not." adapted "Types rule out the other invalid flags";
    "29" restart multiple_restarts timed "Crashes outside each other's window never add up." same;
    "30" restart one_for_one still "Only the crashed child is restarted; one crash too many ends the supervisor." adapted "It ends `Escalated`";
    "31" restart one_for_one_escalation still "Each failed attempt counts, without a delay between them." adapted "It ends `Escalated`";
    "32" restart one_for_all still "All are stopped and started." adapted "It ends `Escalated`";
    "33" restart one_for_all_escalation still "Rounds that fail are repeated until the intensity is exceeded." adapted "It ends `Escalated`";
    "34" restart one_for_all_other_child_fails_restart still "A round that fails is stopped again before the next one." same;
    "35" restart simple_one_for_one still "Only the crashed child is restarted." adapted "It ends `Escalated`";
    "36" stop simple_one_for_one_shutdown timed "Children stop together, the slow one is killed at the common deadline." same;
    "37" restart simple_one_for_one_extra still "What the start hands back reaches the caller." adapted "A typed optional value; it ends `Escalated`";
    "38" restart simple_one_for_one_escalation still "A child is restarted with its own argument; failing attempts end the supervisor." adapted "It ends `Escalated`";
    "39" scale simple_one_for_one_corruption still "The arguments of a temporary child do not outlive it." adapted "The operator's `restart` also begins temporary children again, so the recipe goes with the child and not before";
    "40" restart simple_one_for_one_restart_ignore still "A child whose restart is ignored is dropped." same;
    "41" restart rest_for_one still "The crashed child and the later ones are restarted." adapted "It ends `Escalated`";
    "42" restart rest_for_one_escalation still "Failing attempts end the supervisor." adapted "It ends `Escalated`";
    "43" restart rest_for_one_other_child_fails_restart still "The retry begins with the child that failed." same;
    "44" ended external_start_no_progress_log still "Starts through the API can be told from automatic ones." adapted "By events, which have no level: a start through the API follows `child_added`";
    "45" ended permanent_normal still "A permanent child that finishes is restarted." same;
    "46" ended transient_normal still "A transient child that finishes is kept and not restarted." same;
    "47" ended temporary_normal still "A temporary child that finishes is dropped." same;
    "48" ended permanent_shutdown still "A permanent child that shuts itself down is restarted." same;
    "49" ended transient_shutdown still "A transient child that shuts itself down is kept." same;
    "50" ended temporary_shutdown still "A temporary child that shuts itself down is dropped." same;
    "51" tree faulty_application_shutdown still "The innermost reason of a failed start reaches the top." adapted "No applications; the text names the path and the reason";
    "52" ended permanent_abnormal still "A permanent child that crashes is restarted." same;
    "53" ended transient_abnormal still "A transient child that crashes is restarted." same;
    "54" ended temporary_abnormal still "A temporary child that crashes is dropped." same;
    "55" restart temporary_bystander still "A temporary sibling of a group restart is removed." same;
    "56" answers child_unlink timed "A child that cannot be seen to end does not hang terminate_child, nor others meanwhile." adapted "There are no links to break: a task that ignores its stop is killed at its timeout";
    "57" tree tree still "A subtree that gives up takes its group along; what was added at run time is lost." adapted "The subtree ends `Escalated`";
    "58" scale count_children still "Counts and listing agree for thousands of workers." same;
    "59" scale count_children_supervisor still "The same for supervisors." same;
    "60" scale count_restarting_children timed "Restarting children count as workers." adapted "An attempt that takes time is not waited for: while it lasts the child counts as active";
    "61" none get_callback_module still "The callback module can be asked for." not_applicable "It serves the release handler";
    "62" scale do_not_save_start_parameters_for_temporary_children still "Arguments of temporary children are not kept, those of others are." adapted "They go with the child, see row 39";
    "63" ended do_not_save_child_specs_for_temporary_children still "Specs of temporary children are never in the way of a new start." same;
    "64" scale simple_one_for_one_scale_many_temporary_children still "Ending ten times as many children costs about ten times as much." adapted "A generous bound on wall time; figures are in the benches";
    "65" tree simple_global_supervisor still "Killing a supervisor ends its subtree, and its parent rebuilds it." adapted "No global names";
    "66" answers hanging_restart_loop timed "During a loop of slow failing restarts everything is answered, and terminate_child ends it." adapted "While an attempt lasts the child is `starting` and answers as a running one";
    "67" answers hanging_restart_loop_rest_for_one timed "The same in a group: earlier children run, later ones wait." adapted "While an attempt lasts, as in row 66";
    "68" answers hanging_restart_loop_simple timed "The same under simple_one_for_one." adapted "While an attempt lasts, as in row 66; the key stays the same over restarts";
    "69" none code_change still "Flags and specs change with an upgrade." not_applicable "No hot code upgrade";
    "70" none code_change_map still "The same with maps." not_applicable "No hot code upgrade";
    "71" none code_change_simple still "The template changes with an upgrade." not_applicable "No hot code upgrade";
    "72" none code_change_simple_map still "The same with maps." not_applicable "No hot code upgrade";
    "73" restart order_of_children still "Children start in list order and stop in reverse, in restarts too." same;
    "74" scale scale_start_stop_many_children still "Start and stop do not slow down with the number of children." adapted "A generous bound on wall time; figures are in the benches";
    "75" none format_log_1 still "Reports are rendered by the legacy formatter." not_applicable "Erlang's layout of terms";
    "76" ended format_log_2 still "A report says who, in which context, why, and which child." adapted "Fields of an event instead of text";
    "77" answers already_started_outside_supervisor still "A start that fails because a name is taken says so, and nothing is kept." adapted "The start's own words are passed on";
    "78" significant nonsignificant_temporary still "A child that is not significant ends nothing." same;
    "79" significant nonsignificant_transient still "The same for transient ones." same;
    "80" significant significant_temporary still "A significant temporary child ends its supervisor with any exit of its own." same;
    "81" significant significant_transient still "A significant transient one only when it is not restarted." same;
    "82" significant significant_simple still "simple_one_for_one and auto_shutdown exclude each other." same;
    "83" significant significant_bystander still "Being stopped by a sibling's restart is no end of one's own." same;
    "84" significant significant_escalation still "A shutdown climbs through significant supervisors." same;
    "85" none significant_upgrade_never_any still "auto_shutdown changes with an upgrade." not_applicable "No hot code upgrade";
    "86" none significant_upgrade_any_never still "auto_shutdown changes with an upgrade." not_applicable "No hot code upgrade";
    "87" none significant_upgrade_never_all still "auto_shutdown changes with an upgrade." not_applicable "No hot code upgrade";
    "88" none significant_upgrade_all_never still "auto_shutdown changes with an upgrade." not_applicable "No hot code upgrade";
    "89" none significant_upgrade_any_all still "auto_shutdown changes with an upgrade." not_applicable "No hot code upgrade";
    "90" none significant_upgrade_all_any still "auto_shutdown changes with an upgrade." not_applicable "No hot code upgrade";
    "91" none significant_upgrade_child still "significant changes with an upgrade." not_applicable "No hot code upgrade";

    "T1" topics exact_intensity_boundary still "N restarts are allowed, crash N+1 ends the supervisor; 0 makes the first fatal." adapted "It ends `Escalated`";
    "T2" topics window_arithmetic timed "The window is inclusive." adapted "Exact times instead of whole seconds";
    "T3" topics retry_count_and_pacing still "A start that always fails runs 1 + intensity times, without delay." same;
    "T4" topics manual_restart_does_not_count still "Restarts by hand are never counted." same;
    "T5" topics siblings_at_rest_come_back_with_their_group still "Stopped, ended and ignored members come back with a group restart." same;
    "T6" topics unwinding_order_of_a_failed_start still "A failed start stops the earlier children in reverse and never tries the later." same;
    "T7" topics who_can_end_a_supervisor still "A supervisor obeys its parent and no stranger." adapted "There are no exit signals: who holds a handle may ask, and losing one ends nothing";
    "T8" topics which_stops_are_reported_as_unclean timed "Which exits of a stop are reported as unclean." adapted "A child that ends normally after it was asked has shut down, whatever its restart type";
    "T9" topics transient_supervisor_over_its_intensity still "A transient supervisor that gave up is silently not restarted." adapted "`Escalated` is abnormal: it is restarted";
    "T10" topics sequential_and_parallel_stop_time timed "Ordinary strategies stop one by one, simple_one_for_one together." same;
    "T11" topics all_significant_with_a_hand_stopped_member still "A child stopped by hand is not waited for and does not trigger." same;
    "T12" topics two_children_dead_at_once still "Two dead children count once in one_for_all and twice in one_for_one." same;
    "T13" topics partial_restart_failure still "one_for_all begins its next round anew, rest_for_one with the child that failed." same;
    "T14" topics position_of_a_readded_temporary still "A child added again is the newest." same;
    "T15" topics slow_stops_and_the_window timed "Time spent in stopping siblings spreads restarts out." same;
    "T16" topics nesting_multiplies_the_intensities still "A tree gives up after the product of intensity + 1 starts." same;
    "T17" topics temporary_sibling_of_a_group still "A temporary sibling is removed by a group restart." same;
    "T18" topics the_restarting_state_is_answered still "While a restart is pending, calls answer `restarting`, and terminate_child calls it off." same;
    "T19" topics ignore_on_an_automatic_restart still "A restart that is ignored leaves the child stopped and has counted." same;
    "T20" topics killing_a_supervisor_reaches_its_whole_subtree still "A killed supervisor leaves nothing running." adapted "Its subtree is killed from the bottom; nothing need notice by itself";
    "T21" topics duplicate_ids_are_refused_before_anything_starts still "Specs are checked before any child starts." same;
    "T22" topics uncounted_ends still "Clean ends of transient and all ends of temporary children never count." same;
    "T23" topics restarting_children_of_a_pool_are_counted_right still "A restarting child of a pool that is terminated leaves the counts right." adapted "OTP counts one too few active children then";
    "T24" topics an_exit_during_a_stop_is_consumed still "A child that crashes while it is stopped is neither restarted nor counted." same;
    "T25" topics a_dynamic_supervisor_takes_full_specs_up_to_its_bound still "Children of mixed kinds under one bound (Elixir's DynamicSupervisor)." adapted "count_children answers as simple_one_for_one does";
    "T26" answers dead_keys_are_answered_by_what_is_asked still "Ending what is gone is no error, asking about it is." same;
    "T27" rules unlinked_child still "The crash of a child that removed its link goes unnoticed; terminate_child works all the same." adapted "Only an actor has a link; it goes on counting as active";
    "T28" none unknown_call still "An unknown call crashes the supervisor." not_applicable "Messages are typed";
    "T29" rules blocking_start timed "Children start one at a time, in order; while a start runs, the supervisor serves no call." adapted "A start holds up the later ones and nothing else: every call is answered and every exit seen meanwhile";

    "T30" topics an_ignored_significant_child_is_not_left still "A significant child that was ignored is not waited for." same;
    "T31" topics killed_is_abnormal still "A kill is an abnormal exit." same;
    "T32" topics giving_up_is_reported_in_order still "The crash, each failed attempt, the limit and the stops in reverse are reported in this order." adapted "Clean stops are events too";
    "T33" topics the_report_of_an_end_tells_what_became_of_each_child timed "What did not stop cleanly is reported." adapted "As one report over the whole subtree too; a child that outlives its kill is left behind and named";
    "T34" topics a_supervisor_that_panics_is_a_crash_to_its_parent still "A supervisor that dies without stopping its children takes them along, and its parent rebuilds it." adapted "Children are killed by being dropped, not by links";

    "N1" later which_child still "One child can be looked up; by process only under simple_one_for_one." adapted "By key instead of process";
    "N2" none hibernate_after still "A supervisor hibernates after a time." not_applicable "It tunes the memory of Erlang's machine";
    "N3" later stop_with_a_reason still "A supervisor is stopped with a reason; a permanent one is restarted by its parent." same;
    "N4" later stop_from_within timed "A stop that a child waits for ends with a timeout, and the supervisor ends all the same." adapted "The child that waits is killed at its shutdown time: no deadlock";
    "N5" later intensity_check_is_unchanged still "The cheaper intensity check answers as before." same;

    "M1" mistakes intensity_and_period_are_heeded timed "Intensity and period are heeded." same;
    "M2" mistakes a_failed_restart_does_not_crash_the_supervisor still "A failed or panicking restart does not crash the supervisor." same;
    "M3" mistakes the_window_is_time_and_not_messages still "The window is measured in time, not in messages." same;
    "M4" mistakes children_are_killed_at_their_timeout timed "A child that does not stop is killed and leaves nothing." same;
    "M5" mistakes a_worker_that_ends_at_once_is_restarted_each_time still "A worker that ends at once is restarted each time; a clean transient exit is not." same;
    "M6" mistakes a_pool_stops_although_a_child_was_ignored still "An ignored child does not crash the stop of a pool." same;
    "M7" mistakes a_report_names_every_child_that_had_to_be_killed timed "A grouped report has none too few." same;
    "M8" mistakes a_delayed_child_shows_as_restarting still "A child waits for its delay as `restarting`." same;
    "M9" mistakes terminate_and_delete_cancel_the_delay timed "terminate_child and delete_child cancel the delay." same;
    "M10" mistakes a_failing_delayed_attempt_is_tried_again timed "A delayed attempt that fails is tried again." same;
    "M11" mistakes a_stale_timer_neither_starts_nor_swallows_the_next_delay timed "A timer of an earlier delay neither starts the child nor swallows the next delay." same;
    "M12" mistakes delays_of_one_group_are_merged timed "A group waits for its delay once, and nobody runs meanwhile." same;
    "M13" mistakes a_crash_during_a_siblings_delay_is_merged_with_it timed "A crash during a sibling's delay is merged with it." same;

    "D1" dynamic children_bring_full_specs still "It starts empty; each child brings a full spec, kinds can be mixed, and equal ids are fine." adapted "Children are known by key instead of pid";
    "D2" dynamic a_restarting_child_takes_a_place still "At max_children nothing more is started, and a restarting child counts." same;
    "D3" dynamic common_arguments_go_before_each_childs_own still "Common arguments go in front of each child's own, in restarts too." adapted "A template's function captures what is common, so that its place is the function's business";
    "D4" dynamic the_fourth_crash_in_five_seconds_is_one_too_many still "3 restarts in 5 seconds; significant children and auto_shutdown are refused." adapted "`SupervisorSpec::dynamic` sets this limit, others keep OTP's; it ends `Escalated`";
    "D5" dynamic an_ignored_child_is_not_stored still "An ignored child is said to be ignored and not stored; count_children counts specs as children." adapted "count_children says one spec, as OTP's simple_one_for_one does";
    "D6" dynamic a_key_works_while_its_child_restarts still "A child is ended by name while it restarts; an unknown or dead one is not found." adapted "A key that was never given is not found; ending a child that is gone already is no error, as in OTP";
    "D7" dynamic children_stop_together_each_at_its_own_deadline timed "Children stop in parallel, one deadline for each shutdown value; `shutdown` is clean also for permanent ones." adapted "A shutdown time of 0 is legal, as in OTP";
    "D8" dynamic a_failed_start_leaves_nothing_and_a_failed_restart_is_tried_at_once still "A failed start is told by its bare reason; a failed restart is tried again at once." adapted "The error names the child's id beside the reason";

    "P1" dynamic partitions_are_copies_under_an_ordinary_supervisor still "Copies of one child with ids from 0 on, as many as threads by default, 3 restarts in 5 seconds, never auto_shutdown." adapted "No name is needed: a path leads there. The function gets the number and makes the child";
    "P2" dynamic a_key_leads_to_its_partition_also_after_a_crash still "Numbers go by the remainder of their distance from zero, other keys by hash; after a crash to the new partition." same;
    "P3" dynamic a_resize_ends_the_highest_numbers_and_starts_them_again still "Between 0 and the first number; shrinking ends the highest ids and keeps their specs, growing starts them." adapted "A restart of the supervisor keeps the number";
}

const SECTIONS: [(&str, &str); 6] = [
    ("", "Cases of OTP's suite"),
    ("T", "What the suite does not cover"),
    ("N", "Added after OTP 27"),
    ("M", "Mistakes of other ports and of forks with delays"),
    ("D", "Elixir's DynamicSupervisor"),
    ("P", "Elixir's PartitionSupervisor"),
];

/// Each case of OTP's suite is listed once and in order, and has a test or a reason.
#[test]
fn no_row_is_skipped() {
    let suite: Vec<&str> =
        ROWS.iter().map(|row| row.number).filter(|number| number.parse::<u32>().is_ok()).collect();
    let all: Vec<String> = (1..=91).map(|number: u32| number.to_string()).collect();
    assert_eq!(suite, all, "the 91 cases, each once");
    for (prefix, count) in [("T", 34), ("N", 5), ("M", 13), ("D", 8), ("P", 3)] {
        for number in 1..=count {
            let number = format!("{prefix}{number}");
            assert_eq!(ROWS.iter().filter(|row| row.number == number).count(), 1, "{number}");
        }
    }
    assert_eq!(ROWS.len(), 91 + 34 + 5 + 13 + 8 + 3);
    let names: BTreeSet<&str> = ROWS.iter().map(|row| row.case).collect();
    assert_eq!(names.len(), ROWS.len(), "two rows have one name");
    let skipped = |row: &&Row| matches!(row.verdict, Verdict::NotApplicable(_));
    let skipped: Vec<&str> = ROWS
        .iter()
        .filter(skipped)
        .filter(|row| row.number.parse::<u32>().is_ok())
        .map(|row| row.case)
        .collect();
    assert_eq!(skipped.len(), 13, "{skipped:?}");
    for row in ROWS {
        assert!(!row.claim.is_empty());
        match row.verdict {
            Verdict::Same => assert_ne!(row.group, "none"),
            Verdict::Adapted(how) => assert!(!how.is_empty() && row.group != "none"),
            Verdict::NotApplicable(why) => assert!(!why.is_empty() && row.group == "none", "{}", row.case),
        }
    }
}

/// Returns whether there is a row of this name that declares its test.
pub(crate) fn is_tested(group: &str, case: &str) -> bool {
    let is_it = |row: &&Row| (row.group, row.case) == (group, case);
    ROWS.iter().find(is_it).is_some_and(|row| !matches!(row.verdict, Verdict::NotApplicable(_)))
}

/// Says how many verdicts there are of each kind.
pub(crate) fn counts<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> String {
    let (mut same, mut adapted, mut skipped) = (0, 0, 0);
    for verdict in verdicts {
        match verdict {
            Verdict::Same => same += 1,
            Verdict::Adapted(_) => adapted += 1,
            Verdict::NotApplicable(_) => skipped += 1,
        }
    }
    format!("{same} same, {adapted} adapted, {skipped} not applicable.")
}

/// Returns the page that is made from the rows and the rules.
fn page() -> String {
    let mut page = String::from(
        "# Conformance with OTP\n\n\
         Each case of the suite of OTP's own `supervisor`, in this project's words, and what xy makes of it. A row that is\n\
         the same or adapted has a test of the same name in `xy-actors/tests/conformance`; a rule, at the end, names its\n\
         tests. This page is made from the lists in `rows.rs` and `rule_rows.rs` there: `XY_WRITE_DOCS=1 cargo test -p\n\
         xy-actors --features testkit --test conformance` rewrites it.\n",
    );
    for (prefix, title) in SECTIONS {
        let rows = || {
            ROWS.iter().filter(move |row| row.number.trim_end_matches(|c: char| c.is_ascii_digit()) == prefix)
        };
        let counts = counts(rows().map(|row| &row.verdict));
        let written = write!(
            page,
            "\n## {title}\n\n{counts}\n\n\
             | # | case | what has to hold | in xy |\n|---|---|---|---|\n"
        );
        written.expect("a string takes everything");
        for Row { number, case, claim, verdict, .. } in rows() {
            let written = writeln!(page, "| {number} | `{case}` | {claim} | {verdict} |");
            written.expect("a string takes everything");
        }
    }
    page + &crate::rule_rows::section()
}

#[test]
fn the_page_in_the_docs_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/otp-conformance.md");
    if std::env::var_os("XY_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("the docs can be written");
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(current, page(), "docs/otp-conformance.md is not current: set XY_WRITE_DOCS=1 to rewrite it");
}
