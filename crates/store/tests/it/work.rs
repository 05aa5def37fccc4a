//! Tasks, their attempts and their output.

use legation_model::{
    Within,
    delegate::Delegate,
    ids::{AttemptId, TaskId, TokenId},
    task::{Attempt, TaskState},
};
use legation_store::{
    Page, Store, StoreError, Tx,
    attempts::{self, Assign, End, Finish},
    delegates,
    output::{self, Appended},
    tasks::{self, TaskFilter},
};

use crate::{
    make::{self, NOW, id, scope},
    nouns::with_token,
    place::{Place, read, write},
};

/// Delegates 1 to 4 beside the token, each in its first connection.
async fn with_delegates(place: &Place) -> (Store, TokenId) {
    let (store, token) = with_token(place).await;
    write!(store, |tx| {
        for number in 1..=4 {
            delegates::upsert(tx, std::slice::from_ref(&make::delegate(number, token))).await?;
        }
        Ok(())
    })
    .unwrap();
    (store, token)
}

/// Assigns task `number` through the first connection; refused when the store leaves it out.
async fn assign(tx: &mut Tx, number: u64, attempt: &Attempt) -> Result<(), StoreError> {
    let wanted = [Assign { task: id(number), attempt, counter: 1 }];
    match attempts::assign(tx, &wanted, NOW).await?.as_slice() {
        [assigned] if assigned.task == id(number) => Ok(()),
        others => Err(StoreError::Refused(format!("{others:?}"))),
    }
}

/// Adds task `number` and assigns it to attempt `number`.
async fn assigned(store: &Store, number: u64) {
    write!(store, |tx| {
        tasks::insert(tx, &[make::new(make::task(number), b"work", Some(b"sealed"))]).await?;
        assign(tx, number, &make::attempt(number, id(1))).await
    })
    .unwrap();
}

async fn finish(store: &Store, attempt: AttemptId, state: TaskState) -> Result<Finish, StoreError> {
    {
        let end = End { state, exit_code: Some(0), reason: "why", started: false };
        write!(store, |tx| attempts::finish(tx, attempt, end, NOW + 9).await)
    }
}

async fn get(store: &Store, task: TaskId) -> legation_model::task::Task {
    read!(store, |conn| tasks::get(conn, task).await).unwrap().unwrap()
}

pub(crate) async fn tasks(place: &Place) {
    let (store, _) = with_delegates(place).await;
    let task = make::task(1);
    let inserted = task.clone();
    write!(store, |tx| tasks::insert(tx, &[make::new(inserted, b"work", Some(b"sealed"))]).await).unwrap();
    assert_eq!(get(&store, id(1)).await, task);
    assert_eq!(read!(store, |conn| tasks::queued(conn).await), Ok(vec![task]));
    let work = async || read!(store, |conn| attempts::work(conn, id(1)).await);
    assert_eq!(work().await, Ok((b"work".to_vec(), Some(b"sealed".to_vec()))));

    let assign = async || write!(store, |tx| assign(tx, 1, &make::attempt(1, id(1))).await);
    let connect = async |counter| {
        let delegate = Delegate { counter, ..make::delegate(1, id(1)) };
        write!(store, |tx| delegates::upsert(tx, std::slice::from_ref(&delegate)).await).unwrap();
    };
    connect(2).await;
    assert!(matches!(assign().await, Err(StoreError::Refused(_))), "through a connection that is not the newest");
    connect(1).await;
    assign().await.unwrap();
    assert!(matches!(assign().await, Err(StoreError::Refused(_))), "assigned twice");
    let start = async || write!(store, |tx| attempts::started(tx, &[id(1)], NOW + 1).await);
    assert_eq!((start().await, start().await), (Ok(1), Ok(0)));
    let cancel = async || write!(store, |tx| tasks::request_cancel(tx, id(1)).await);
    assert_eq!(cancel().await, Ok(true));
    assert!(get(&store, id(1)).await.cancel_requested);
    let open = read!(store, |conn| tasks::open_of_boot(conn, id(1), id(1)).await).unwrap();
    assert_eq!(open, read!(store, |conn| tasks::open_attempts(conn).await).unwrap());
    assert_eq!(open[0].attempt, Some(make::attempt(1, id(1))));
    assert_eq!(finish(&store, id(1), TaskState::Rejected).await, Ok(Finish::Late(id(1))), "it had started");
    assert!(matches!(finish(&store, id(1), TaskState::Running).await, Err(StoreError::Refused(_))));
    assert_eq!(finish(&store, id(1), TaskState::Succeeded).await, Ok(Finish::Recorded(id(1))));
    let found = get(&store, id(1)).await;
    assert_eq!((found.state, found.exit_code, found.finished_at), (TaskState::Succeeded, Some(0), Some(NOW + 9)));
    assert_eq!(cancel().await, Ok(false));
    assert_eq!(work().await, Ok((b"work".to_vec(), None)), "an ended task keeps its secrets");

    write!(store, |tx| tasks::insert(tx, &[make::new(make::task(2), b"", None)]).await).unwrap();
    let end = async |state| write!(store, |tx| tasks::end_unassigned(tx, id(2), state, "why", NOW).await);
    assert!(matches!(end(TaskState::Succeeded).await, Err(StoreError::Refused(_))));
    assert_eq!((end(TaskState::Rejected).await, end(TaskState::Cancelled).await), (Ok(true), Ok(false)));
    let list = async |filter: TaskFilter| {
        let page = Page::first(10);
        let paged = read!(store, |conn| tasks::list(conn, &Within::Everywhere, &filter, &page).await).unwrap();
        paged.items.iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(list(TaskFilter::default()).await, [id(2), id(1)], "newest first");
    assert_eq!(list(TaskFilter { state: Some(TaskState::Rejected), ..Default::default() }).await, [id(2)]);
    assert_eq!(list(TaskFilter { delegate: Some(id(1)), ..Default::default() }).await, [id(1)]);
    let within = async |scopes: &[&str]| {
        let within = Within::below(scopes.iter().map(|text| scope(text)));
        let (filter, page) = (TaskFilter::default(), Page::first(10));
        read!(store, |conn| tasks::list(conn, &within, &filter, &page).await).unwrap().items.len()
    };
    assert_eq!((within(&["acme/shop"]).await, within(&["acme"]).await, within(&["beta", "acme"]).await), (0, 2, 2));
}

pub(crate) async fn late_results_change_nothing(place: &Place) {
    let (store, _) = with_delegates(place).await;
    assigned(&store, 1).await;
    let lose = async || write!(store, |tx| attempts::lose(tx, &[id(1), id(404)], "gone", NOW).await);
    assert_eq!((lose().await, lose().await), (Ok(1), Ok(0)));
    let before = get(&store, id(1)).await;
    assert_eq!(before.state, TaskState::Lost);
    assert_eq!(finish(&store, id(1), TaskState::Succeeded).await, Ok(Finish::Late(id(1))));
    assert_eq!(finish(&store, id(1), TaskState::Succeeded).await, Ok(Finish::Late(id(1))));
    assert_eq!(get(&store, id(1)).await, before);
    assert_eq!(finish(&store, id(404), TaskState::Succeeded).await, Ok(Finish::Unknown));
    let mut conn = place.behind().await;
    let late: String = sqlx::query_scalar("SELECT state FROM late_results").fetch_one(&mut conn).await.unwrap();
    assert_eq!(late, "succeeded");

    assigned(&store, 2).await;
    assert_eq!(finish(&store, id(2), TaskState::Failed).await, Ok(Finish::Recorded(id(2))));
    assert_eq!(finish(&store, id(2), TaskState::Failed).await, Ok(Finish::Repeated(id(2))));
    assert_eq!(finish(&store, id(2), TaskState::Succeeded).await, Ok(Finish::Late(id(2))));
    assert_eq!(get(&store, id(2)).await.state, TaskState::Failed);
}

pub(crate) async fn requeued_tasks(place: &Place) {
    let (store, _) = with_delegates(place).await;
    assigned(&store, 1).await;
    let first = get(&store, id(1)).await;
    let later = first.queue_deadline + 5;
    let requeue = async |attempt: AttemptId, retry| {
        write!(store, |tx| attempts::requeue(tx, attempt, retry, later).await).unwrap()
    };
    assert!(requeue(id(1), true).await);
    assert!(!requeue(id(1), true).await, "put back twice");
    let task = get(&store, id(1)).await;
    assert_eq!((task.state, task.retries_left, task.attempt), (TaskState::Queued, 0, None));
    let patience = first.queue_deadline - first.created_at;
    assert_eq!(task.queue_deadline, later + patience, "a further try may wait as long as the first one might");

    write!(store, |tx| assign(tx, 1, &make::attempt(2, id(1))).await).unwrap();
    assert_eq!(finish(&store, id(1), TaskState::Succeeded).await, Ok(Finish::Late(id(1))), "of the former attempt");
    let task = get(&store, id(1)).await;
    assert_eq!((task.state, task.attempt.clone()), (TaskState::Assigned, Some(make::attempt(2, id(1)))));
    assert_eq!(read!(store, |conn| attempts::by_attempt(conn, id(1)).await), Ok(Some(task)));
    assert!(!requeue(id(2), true).await, "no retry was left");
    assert!(requeue(id(2), false).await, "one that did not start costs none");
}

pub(crate) async fn open_attempts_are_lost_by_token(place: &Place) {
    let (store, token) = with_delegates(place).await;
    for number in 1..=3 {
        assigned(&store, number).await;
    }
    write!(store, |tx| {
        tasks::insert(tx, &[make::new(make::task(4), b"", None)]).await?;
        assign(tx, 4, &make::attempt(4, id(77))).await
    })
    .unwrap();
    finish(&store, id(3), TaskState::Succeeded).await.unwrap();
    write!(store, |tx| attempts::started(tx, &[id(2)], NOW).await).unwrap();
    assert_eq!(read!(store, |conn| tasks::open_of_token(conn, token).await).unwrap().len(), 2);
    let lost = write!(store, |tx| attempts::lose_of_token(tx, token, "token_revoked", NOW).await);
    let mut lost = lost.unwrap();
    lost.sort();
    assert_eq!(lost, [id(1), id(2)]);
    assert_eq!(get(&store, id(1)).await.reason, "token_revoked");
    assert_eq!(get(&store, id(3)).await.state, TaskState::Succeeded);
    assert_eq!(get(&store, id(4)).await.state, TaskState::Assigned, "another token's task was touched");
}

pub(crate) async fn output(place: &Place) {
    let (store, _) = with_delegates(place).await;
    assigned(&store, 1).await;
    let append = async |offset, bytes: &'static [u8]| {
        write!(store, |tx| output::append(tx, id(1), offset, "stdout", bytes).await)
    };
    assert_eq!(append(0, b"hello ").await, Ok(Appended::Stored));
    assert_eq!(append(0, b"hello ").await, Ok(Appended::Known));
    assert!(matches!(append(7, b"gap").await, Err(StoreError::Refused(_))));
    assert!(matches!(append(u64::MAX, b"gap").await, Err(StoreError::Refused(_))));
    assert_eq!(append(3, b"lo world").await, Ok(Appended::Stored), "an overlap adds what is new");
    assert_eq!(append(0, b"").await, Ok(Appended::Known));
    let read = async |from, max| {
        let chunks = read!(store, |conn| output::read(conn, id(1), from, max).await).unwrap();
        let offset = chunks.first().map(|chunk| chunk.offset);
        (offset, chunks.into_iter().flat_map(|chunk| chunk.bytes).collect::<Vec<_>>())
    };
    assert_eq!(read(0, 100).await, (Some(0), b"hello world".to_vec()));
    assert_eq!(read(0, 1).await, (Some(0), b"hello ".to_vec()));
    assert_eq!(read(8, 100).await, (Some(8), b"rld".to_vec()));
    assert_eq!(read(11, 100).await, (None, Vec::new()));
    assert_eq!(read!(store, |conn| output::end(conn, id(1)).await), Ok(11));
    finish(&store, id(1), TaskState::Succeeded).await.unwrap();
    assert_eq!(append(11, b"late").await, Ok(Appended::Closed));
}
