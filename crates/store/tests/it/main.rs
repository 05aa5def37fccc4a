//! One suite, both engines: each test is written once and runs as `sqlite::…` and as `postgres::…`.

#![expect(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod make;
mod nouns;
mod place;
mod work;

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
    nouns: accounts, tokens, token_names_and_tombstones, token_life, delegates, receipts, audit, keys, api_keys,
        idempotency, pages_stay_stable_under_inserts, long_lists_are_written_whole;
    work: tasks, late_results_change_nothing, requeued_tasks, open_attempts_are_lost_by_token, output;
}
