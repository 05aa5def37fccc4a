//! The Manager in this process: the moments that decide, each on both engines.

mod revoke;

/// One test on both engines.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(legation_testkit::Engine::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(legation_testkit::Engine::Postgres).await;
            })*
        }
    };
}
pub(crate) use on_both;
