//! Tasks, from their submission on. What becomes of each of their attempts is in [`crate::attempts`].

use legation_model::{
    Millis, Within,
    ids::{BootId, DelegateId, TaskId, TokenId},
    task::{Attempt, Task, TaskState},
};
use sqlx::any::AnyRow;

use crate::{
    Conn, Page, Paged, StoreError,
    conn::Statement,
    many, page,
    row::{Columns, integer, join},
};

/// Which tasks a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only those in this state.
    pub state: Option<TaskState>,
    /// Only those whose newest attempt is on this delegate.
    pub delegate: Option<DelegateId>,
}

/// All columns but the large ones.
macro_rules! select_tasks {
    ($rest:literal) => {
        concat!(
            "SELECT id, scope, kind, selectors, state, reason, exit_code, timeout, queue_deadline, output_limit, \
             retries_left, created_by, created_at, started_at, finished_at, cancel_requested, \
             attempt, delegate, boot, token FROM tasks ",
            $rest
        )
    };
}

pub(crate) use select_tasks;

const NEW: many::Into = many::Into {
    table: "tasks",
    columns: "id, scope, kind, selectors, state, reason, exit_code, timeout, queue_deadline, output_limit, \
              retries_left, created_by, created_at, sealed_secrets, work",
    conflict: "",
};
const GET: &str = select_tasks!("WHERE id = $1");
const LIST: &str = select_tasks!(
    "WHERE (created_at < $1 OR (created_at = $1 AND id < $2)) \
     AND ($3 = '' OR state = $3) AND ($4 = '' OR delegate = $4) AND {within} \
     ORDER BY created_at DESC, id DESC LIMIT $5"
);
const QUEUED: &str = select_tasks!("WHERE state = 'queued' AND finished_at IS NULL ORDER BY created_at, id");
const OPEN: &str =
    select_tasks!("WHERE state IN ('assigned', 'running') AND finished_at IS NULL ORDER BY created_at, id");
const OPEN_WHERE: &str = select_tasks!("WHERE state IN ('assigned', 'running') AND finished_at IS NULL");
const OPEN_OF_TOKEN: &str =
    select_tasks!("WHERE token = $1 AND state IN ('assigned', 'running') AND finished_at IS NULL");
const OPEN_OF_BOOT: &str =
    select_tasks!("WHERE delegate = $1 AND boot = $2 AND state IN ('assigned', 'running') AND finished_at IS NULL");
const END_UNASSIGNED: &str = "UPDATE tasks SET state = $2, reason = $3, finished_at = $4, sealed_secrets = NULL \
     WHERE id = $1 AND state = 'queued'";
const REQUEST_CANCEL: &str = "UPDATE tasks SET cancel_requested = 1 WHERE id = $1 AND finished_at IS NULL";
/// One that was never assigned, with the encoded work and the sealed secrets.
#[derive(Clone, Debug)]
pub struct New {
    /// The task.
    pub task: Task,
    /// What it does.
    pub work: Vec<u8>,
    /// Its secrets, where it has any.
    pub sealed_secrets: Option<Vec<u8>>,
}

/// Adds tasks.
///
/// # Errors
/// [`StoreError::Taken`] when an id exists.
pub async fn insert(conn: &mut Conn, new: &[New]) -> Result<(), StoreError> {
    many::insert(conn, NEW, new, bind).await.map(drop)
}

fn bind(query: Statement<'static>, new: &New) -> Result<Statement<'static>, StoreError> {
    let task = &new.task;
    let query = query
        .bind(task.id.to_string())
        .bind(task.scope.to_string())
        .bind(task.kind.as_str())
        .bind(join(&task.selectors))
        .bind(task.state.as_str())
        .bind(task.reason.clone())
        .bind(task.exit_code.map(i64::from))
        .bind(task.timeout)
        .bind(task.queue_deadline)
        .bind(integer(task.output_limit)?)
        .bind(i64::from(task.retries_left))
        .bind(task.created_by.clone())
        .bind(task.created_at)
        .bind(new.sealed_secrets.clone())
        .bind(new.work.clone());
    Ok(query)
}

/// The one with this id.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: TaskId) -> Result<Option<Task>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(id.to_string())).await?.as_ref().map(task).transpose()
}

/// Those within that the filter lets through, newest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(
    conn: &mut Conn,
    within: &Within,
    filter: &TaskFilter,
    page: &Page,
) -> Result<Paged<Task>, StoreError> {
    let (at, id) = page.border(Millis::MAX)?;
    let query = page::confined(LIST, 5, within)
        .bind(at)
        .bind(id)
        .bind(filter.state.map(TaskState::as_str).unwrap_or_default())
        .bind(filter.delegate.map(|id| id.to_string()).unwrap_or_default())
        .bind(page.rows());
    let items = tasks(conn, page::scopes(query, within)).await?;
    Ok(page.cut(items, |task| page::border(task.created_at, task.id)))
}

/// All that wait for a delegate, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn queued(conn: &mut Conn) -> Result<Vec<Task>, StoreError> {
    tasks(conn, sqlx::query(QUEUED)).await
}

/// All that are assigned or running, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn open_attempts(conn: &mut Conn) -> Result<Vec<Task>, StoreError> {
    tasks(conn, sqlx::query(OPEN)).await
}

/// Those of them that run under this token.
///
/// # Errors
/// Those of the database.
pub async fn open_of_token(conn: &mut Conn, token: TokenId) -> Result<Vec<Task>, StoreError> {
    tasks(conn, sqlx::query(OPEN_OF_TOKEN).bind(token.to_string())).await
}

/// Those of them that run on one of these delegates.
///
/// # Errors
/// Those of the database.
pub async fn open_of_delegates(conn: &mut Conn, delegates: &[DelegateId]) -> Result<Vec<Task>, StoreError> {
    let mut found = Vec::new();
    for chunk in delegates.chunks(many::ROWS_MAX) {
        let text = format!("{OPEN_WHERE} AND delegate IN ({})", many::arguments(0, chunk.len()));
        let query = chunk.iter().fold(many::passing(conn, &text), |query, id| query.bind(id.to_string()));
        found.extend(tasks(conn, query).await?);
    }
    Ok(found)
}

/// Those of them that run on this start of this delegate.
///
/// # Errors
/// Those of the database.
pub async fn open_of_boot(conn: &mut Conn, delegate: DelegateId, boot: BootId) -> Result<Vec<Task>, StoreError> {
    tasks(conn, sqlx::query(OPEN_OF_BOOT).bind(delegate.to_string()).bind(boot.to_string())).await
}

/// Ends a task that is still queued, as cancelled or rejected; whether it was.
///
/// # Errors
/// [`StoreError::Refused`] when a queued task cannot end as `state`.
pub async fn end_unassigned(
    conn: &mut Conn,
    id: TaskId,
    state: TaskState,
    reason: &str,
    now: Millis,
) -> Result<bool, StoreError> {
    must_be_final(state)?;
    if !TaskState::Queued.may_become(state) {
        return Err(StoreError::refused(format!("a queued task cannot end as {state}")));
    }
    let query = sqlx::query(END_UNASSIGNED).bind(id.to_string()).bind(state.as_str());
    Ok(conn.run(query.bind(reason.to_owned()).bind(now)).await? == 1)
}

/// Which of these open tasks a person wants to end.
///
/// # Errors
/// Those of the database.
pub async fn cancel_requested(conn: &mut Conn, ids: &[TaskId]) -> Result<Vec<TaskId>, StoreError> {
    let mut found = Vec::new();
    for chunk in ids.chunks(many::ROWS_MAX) {
        let arguments = many::arguments(0, chunk.len());
        let text =
            format!("SELECT id FROM tasks WHERE id IN ({arguments}) AND cancel_requested = 1 AND finished_at IS NULL");
        let query = chunk.iter().fold(many::passing(conn, &text), |query, id| query.bind(id.to_string()));
        for row in conn.all(query).await? {
            found.push(row.word("id")?);
        }
    }
    Ok(found)
}

/// Notes that a person wants the task to end; whether it had not ended yet.
///
/// # Errors
/// Those of the database.
pub async fn request_cancel(conn: &mut Conn, id: TaskId) -> Result<bool, StoreError> {
    Ok(conn.run(sqlx::query(REQUEST_CANCEL).bind(id.to_string())).await? == 1)
}

pub(crate) fn must_be_final(state: TaskState) -> Result<(), StoreError> {
    if state.is_final() { Ok(()) } else { Err(StoreError::refused(format!("{state} is not an end of a task"))) }
}

pub(crate) async fn tasks(conn: &mut Conn, query: Statement<'_>) -> Result<Vec<Task>, StoreError> {
    conn.all(query).await?.iter().map(task).collect()
}

pub(crate) fn task(row: &AnyRow) -> Result<Task, StoreError> {
    Ok(Task {
        id: row.word("id")?,
        scope: row.word("scope")?,
        kind: row.word("kind")?,
        selectors: row.words("selectors")?,
        state: row.word("state")?,
        reason: row.text("reason")?,
        exit_code: row.maybe_number("exit_code")?,
        timeout: row.time("timeout")?,
        queue_deadline: row.time("queue_deadline")?,
        output_limit: row.number("output_limit")?,
        retries_left: row.number("retries_left")?,
        created_by: row.text("created_by")?,
        created_at: row.time("created_at")?,
        started_at: row.maybe_number("started_at")?,
        finished_at: row.maybe_number("finished_at")?,
        cancel_requested: row.number::<i64>("cancel_requested")? != 0,
        attempt: attempt(row)?,
    })
}

fn attempt(row: &AnyRow) -> Result<Option<Attempt>, StoreError> {
    let Some(id) = row.maybe_word("attempt")? else { return Ok(None) };
    Ok(Some(Attempt { id, delegate: row.word("delegate")?, boot: row.word("boot")?, token: row.word("token")? }))
}
