//! The rules, in one table: the list and the tests are both made of it, so neither can have what the other lacks.

use super::{
    Rule, Run, commits, crash, damage, documents, files, fixture, flush, history, listing, model, openers,
    reopening, room, strangers, values, whole,
};

/// Makes one test for each rule of the contract of [`JobStore`](crate::store::JobStore), named as the rule, and the test
/// `child`, as which the rules start this program again.
///
/// `logic: SUBJECT` for a store without a path, `disk: SUBJECT` for one with a path, where `SUBJECT` is a constant
/// expression of a type that implements [`Subject`](crate::store::conformance::Subject) or
/// [`OnDisk`](crate::store::conformance::OnDisk). A store of each format, `format-N.NAME`, is in the crate's
/// `tests/fixtures`; the ignored test `write_fixture` makes that of the present one.
///
/// ```text
/// //! The contract of a store, rule by rule.
/// mod common;
/// nodejobs_core::store_conformance!(disk: common::Sqlite);
/// ```
#[macro_export]
macro_rules! store_conformance {
    (logic: $subject:expr) => {
        fn suite() -> $crate::store::conformance::Suite {
            $crate::store::conformance::Suite::logic(&$subject)
        }
        $crate::store_conformance! { @table logic_tests }
    };
    (disk: $subject:expr) => {
        fn suite() -> $crate::store::conformance::Suite {
            $crate::store::conformance::Suite::disk(
                &$subject,
                ::core::concat!(::core::module_path!(), "::child"),
                ::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"),
            )
        }
        $crate::store_conformance! { @table all_tests }

        #[test]
        #[ignore = "writes tests/fixtures/format-N.NAME, once for each format"]
        fn write_fixture() {
            suite().write_fixture();
        }
    };

    (@logic_tests { $($logic:tt)* } { $($disk:tt)* }) => {
        $crate::store_conformance! { @tests $($logic)* }
    };
    (@all_tests { $($logic:tt)* } { $($disk:tt)* }) => {
        $crate::store_conformance! { @tests $($logic)* $($disk)* }
    };
    (@tests $($module:ident :: $name:ident: $statement:literal;)*) => {
        $(
            #[test]
            fn $name() {
                suite().run(::core::stringify!($name));
            }
        )*

        /// Not a rule: the body of the processes that rules start.
        #[test]
        fn child() {
            suite().child();
        }
    };
    (@list { $($logic:ident :: $logic_name:ident: $logic_statement:literal;)* }
           { $($disk:ident :: $disk_name:ident: $disk_statement:literal;)* }) => {
        /// Every rule, those for all stores first.
        pub const RULES: &[Rule] = &[
            $(Rule {
                name: stringify!($logic_name),
                statement: $logic_statement,
                run: Run::Logic($logic::$logic_name),
            },)*
            $(Rule {
                name: stringify!($disk_name),
                statement: $disk_statement,
                run: Run::Disk($disk::$disk_name),
            },)*
        ];
    };

    (@table $what:ident) => {
        $crate::store_conformance! { @$what {
            commits::inserts_are_create_only:
                "A job is inserted where there is none; a second insert is refused and changes nothing.";
            commits::changes_are_compare_and_set:
                "A change that was decided on another revision is refused and hears the one that is stored.";
            commits::illegal_moves_are_refused:
                "Exactly the moves of the status table are made; all others are refused and change nothing.";
            commits::a_queued_attempt_is_redefined:
                "What a queued attempt runs is changed, indexes included; no other status and no other attempt allows it.";
            commits::rejected_units_leave_no_trace:
                "Nothing of a rejected unit is done, its documents included, and the others are not disturbed.";
            commits::later_units_see_what_earlier_ones_did:
                "The units of one commit are decided in order, each on what those before it did.";
            commits::commits_without_a_job_are_commits:
                "A commit of nothing and one of documents alone change no number.";
            commits::one_of_racing_inserts_wins:
                "Of inserts of one id that race, one is applied, and the others hear that it exists.";
            commits::one_of_racing_updates_wins:
                "Of updates of one revision that race, one is applied, and the others hear the next revision.";
            listing::listings_are_in_the_order_of_submission:
                "Jobs are listed by seq in both directions, in pages that neither repeat nor leave out any.";
            listing::cursors_are_stable:
                "Jobs that come and go while pages are read make no other appear twice or not at all.";
            listing::every_filter_finds_what_matches:
                "Each filter alone, in both directions and over pages, finds exactly the jobs that match.";
            listing::every_pair_of_filters_finds_what_matches:
                "Each two filters together find exactly the jobs that match both.";
            listing::counts_are_those_of_the_jobs:
                "The counts are the jobs by status, through inserts, moves, attempts and removals.";
            history::attempts_are_kept_in_order:
                "All attempts are there, oldest first, and the job is its newest one.";
            history::old_attempts_are_forgotten:
                "Attempts up to a number are gone and the others as they were; the newest cannot be forgotten.";
            history::events_have_no_gap_and_stay:
                "Each applied change but a removal appends one event, numbered without a gap; none ever goes.";
            history::numbers_are_never_given_twice:
                "The seq of a removed job is not given again, also if it was the last one.";
            history::removed_jobs_leave_nothing_but_events:
                "A removed job is in no read and no index, and its id begins anew.";
            documents::documents_are_put_kept_and_removed:
                "A document is replaced by a put, kept by a put-if-absent, and gone after a remove.";
            documents::documents_are_in_the_order_of_their_keys:
                "Documents of one kind are listed by prefix in the order of the bytes of their keys, long ones too.";
            documents::documents_come_in_pages:
                "Going on behind the last key of a page gives each document of the prefix once.";
            values::empty_values_come_back:
                "What is empty comes back empty and not absent.";
            values::large_values_come_back:
                "Values of a mebibyte come back through every change, a key of a document among them.";
            values::odd_values_come_back:
                "Bytes that are not UTF-8, NULs, and the least and greatest numbers and times come back.";
            whole::readers_see_whole_commits:
                "Who reads while others write sees each commit wholly or not at all, and all that had returned.";
            whole::a_new_store_is_loaded_with_what_another_one_holds:
                "What a walk through one store gives fills another one with the same, numbers included.";
            whole::what_is_there_already_is_not_loaded:
                "Loading what is there is refused by name, and then nothing is added.";
            whole::a_check_of_a_filled_store_is_sound:
                "A check reads everything and finds nothing wrong with what commits have made.";
        } {
            model::it_answers_as_the_in_memory_store_does:
                "Random commits and reads, reopened at random, have the outcomes and answers of the in-memory store.";
            reopening::everything_survives_reopening:
                "A store that is opened again holds the same, and says the same about itself.";
            reopening::numbers_go_on_after_reopening:
                "No seq and no event number is given twice, also if the last job was removed before the reopening.";
            reopening::the_last_handle_frees_the_store:
                "Once the last handle is dropped, the store is opened again at once.";
            crash::commits_survive_an_abort:
                "What was committed before a process aborts is there.";
            crash::commits_survive_kills:
                "Killed at any instant, every acknowledged commit is there, none is torn, and a check is sound.";
            openers::a_second_opener_is_refused_at_once_or_shares:
                "A store that cannot be shared refuses a second opener at once as in use; one that can, shows the same.";
            openers::racing_openers_meet_one_store:
                "Of openers that race to create a store each gets the same one, and nothing is left over.";
            files::files_are_for_their_owner_alone:
                "Files have mode 0600 and directories 0700, also where they came back with a wider one.";
            files::odd_names_are_places_all_the_same:
                "A store can have any name that a file can have.";
            files::places_that_cannot_be_used_are_named:
                "A place in nowhere, below a file or of the other kind is refused by name, and nothing is made there.";
            strangers::unknown_formats_are_refused_unread:
                "A store of an unknown format is refused as that and left as it is, bytes and modes.";
            strangers::what_is_no_store_is_refused:
                "What is empty, garbage or another program's is refused by name and left as it is.";
            strangers::cut_stores_are_never_smaller_ones:
                "A store that lost the end of a file is refused, read as damaged, or whole: never one with less in it.";
            damage::damaged_records_are_named_and_never_left_out:
                "A damaged record is an error naming the job, found by a check; other jobs can be read.";
            damage::random_damage_is_noticed:
                "Wherever its files are damaged, an error or a check says so, or it does no harm.";
            room::a_full_disk_takes_the_whole_commit_back:
                "Without room a commit is refused as full, nothing of it is visible, reads go on, and later it works.";
            room::a_store_without_room_for_its_beginning_is_made_later:
                "Without room for a new store opening is an error, and works once there is room.";
            room::a_read_only_place_is_an_error:
                "A store that cannot be written to is refused by name, and opens again when it can.";
            flush::each_commit_is_flushed:
                "Before a commit returns, one of the store's files was synchronised with success.";
            fixture::stores_of_every_format_are_read:
                "A store of each format there ever was is opened with its whole content, and goes on.";
        } }
    };
}

crate::store_conformance! { @table list }
