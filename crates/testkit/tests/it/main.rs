//! What only the whole system can show, and the rules of the house.

/// Tells each story on both databases.
macro_rules! on_both {
    ($($story:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $story() {
                super::$story(legation_testkit::Engine::Sqlite).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            async fn $story() {
                super::$story(legation_testkit::Engine::Postgres).await;
            })*
        }
    };
}

mod authoriser;
mod compare;
mod crash;
mod flood;
mod hostile;
mod house;
mod inside;
mod life;
mod load;
mod network;
mod outage;
mod papers;
mod plants;
mod proxies;
mod refusals;
mod revoke;
mod secrets;
mod up;
