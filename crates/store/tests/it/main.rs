//! One suite, both engines: each test is written once and runs as `sqlite::…` and as `postgres::…`.

#![expect(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod access;
mod logins;
mod make;
mod nouns;
mod opening;
mod place;
mod trouble;
mod work;
mod wraps;
mod writing;

/// Every test of the suite, by module.
macro_rules! suite {
    ($($module:ident: $($test:ident),+;)+) => {
        mod sqlite {
            $(mod $module {$(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::$module::$test(&crate::place::Place::sqlite()).await;
                }
            )+})+
        }

        mod postgres {
            $(mod $module {$(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::$module::$test(&crate::place::Place::postgres().await).await;
                }
            )+})+
        }
    };
}

suite! {
    access: principals, roles, grants, api_keys, a_standing_is_what_the_owner_holds, keys_of_before_get_owners;
    logins: sessions, a_standing_of_a_session, passwords, identities;
    nouns: scopes, scopes_end_for_good, tokens, token_names_and_tombstones, token_life, token_uses, delegates, delegates_that_wait_and_that_go, receipts, audit, audit_checkpoints, keys,
        idempotency, pages_stay_stable_under_inserts, long_lists_are_written_whole;
    work: tasks, late_results_change_nothing, requeued_tasks, open_attempts_are_lost_by_token, output;
    writing: a_failing_job_is_undone_alone, a_panicking_job_does_not_end_the_writer, an_urgent_job_goes_first, an_urgent_job_interrupts_a_batch,
        callers_share_transactions, a_queue_slows_its_callers_down, an_answered_write_survives_kill_9,
        an_effect_holds_its_token_until_it_is_committed;
    opening: a_second_manager_is_refused_by_name, beside_takes_no_lock_and_no_epoch,
        an_overtaken_manager_writes_nothing, readers_cannot_write, an_edited_migration_is_refused,
        a_newer_database_is_refused, nothing_legal_is_misread;
    wraps: wraps, values_are_kept_and_erased;
    trouble: a_locked_database_is_unavailable_until_it_is_free, a_database_that_is_gone_comes_back, readers_are_few,
        closing_finishes_what_waits;
}
