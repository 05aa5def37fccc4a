//! The Manager in this process: the moments that decide, each on both engines.

mod access;
mod audit;
mod audit_reading;
mod canary;
mod commands;
mod connections;
mod delegates;
mod enrolment;
mod grants;
mod input;
mod interleavings;
mod keys;
mod limits;
mod listeners;
mod logins;
mod oidc;
mod passwords;
mod proof;
mod raw;
mod reveal;
mod revoke;
mod schedule;
mod scopes;
mod session_times;
mod sources;
mod store;
mod tasks;
mod uses;
mod vouched;
mod warnings;
mod wraps;

use legation_api::tasks::{Shell, SubmitTask, Work};
use legation_model::ids::{AttemptId, TaskId};
use legation_testkit::{Inside, Puppet, world::Issued};
use legation_wire::message::{FromDelegate, ToDelegate};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tokio::sync::oneshot;

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

/// A connection to the database past the Manager.
async fn beside(inside: &Inside) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let url = inside.manager.config.database_url.clone().expect("a database of its own");
    AnyConnection::connect(&url).await.expect("a second connection")
}

/// Runs a statement behind the Manager's back.
async fn behind(inside: &Inside, text: &str) {
    beside(inside).await.execute(AssertSqlSafe(text.to_owned())).await.expect("a statement that fits");
}

/// Keeps the store's writer busy until the sender is used or dropped; the receiver hears when that begins.
fn hold_writer(inside: &Inside) -> (oneshot::Sender<()>, oneshot::Receiver<()>) {
    let (release, held) = oneshot::channel::<()>();
    let (begin, running) = oneshot::channel::<()>();
    let store = inside.manager.store.clone();
    let wait = legation_store::job(move |_| {
        Box::pin(async move {
            let _ = begin.send(());
            let _ = held.await;
            Ok(())
        })
    });
    tokio::spawn(async move { store.write(wait).await });
    (release, running)
}

/// Submits a task that does nothing, for a delegate of this name or tag.
async fn submit(inside: &Inside, on: &str) -> TaskId {
    let work = Work::Shell(Shell { script: "true".to_owned(), ..Shell::default() });
    let mut task = SubmitTask::new("default".parse().expect("a scope"), work);
    task.selectors = vec![on.parse().expect("a selector")];
    inside.client.submit_task(&task).await.expect("submitted").id
}

/// Joins, gets one task assigned and says that it started.
async fn working(inside: &Inside, name: &str, token: &Issued) -> (Puppet, AttemptId, TaskId) {
    let mut puppet = inside.puppet(name, token);
    puppet.join().await;
    let task = submit(inside, name).await;
    let ToDelegate::Assign(assignment) = puppet.message().await else { panic!("no assignment") };
    puppet.say(FromDelegate::Started { attempt: assignment.attempt }).await.expect("said");
    (puppet, assignment.attempt, task)
}
