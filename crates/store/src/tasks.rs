//! Tasks. The newest attempt stands in the task's own row, so that each life-step is one statement; its WHERE
//! is the guard, so that a step is taken at most once and never backwards.

use legation_model::{
    Millis, Scope,
    ids::{AttemptId, BootId, DelegateId, TaskId, TokenId},
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
    /// Only those of this scope and of those below.
    pub scope: Option<Scope>,
    /// Only those in this state.
    pub state: Option<TaskState>,
    /// Only those whose newest attempt is on this delegate.
    pub delegate: Option<DelegateId>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// A final state.
    pub state: TaskState,
    /// Where there was a program.
    pub exit_code: Option<i32>,
    /// For people.
    pub reason: &'a str,
    /// It began in the same moment, as far as is known, and that is not noted yet.
    pub started: bool,
}

/// What became of a reported result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It is the result of this task.
    Recorded(TaskId),
    /// It had been recorded before, from the same attempt; nothing changed.
    Repeated(TaskId),
    /// The attempt was over in another way; the result is kept beside it and changes nothing.
    Late(TaskId),
    /// No task has or had this attempt.
    Unknown,
}

/// What a delegate needs of a task: the work, and the sealed secrets while it is open.
pub type Work = (Vec<u8>, Option<Vec<u8>>);

/// A task that shall go to a delegate, through the connection with this counter.
#[derive(Clone, Copy, Debug)]
pub struct Assign<'a> {
    /// Which task.
    pub task: TaskId,
    /// Its attempt from now on.
    pub attempt: &'a Attempt,
    /// The connection, by its place among those of the delegate's start.
    pub counter: u64,
}

/// One that has gone there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Which task.
    pub task: TaskId,
    /// What the delegate needs of it.
    pub work: Work,
}

/// All columns but the large ones.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, scope, kind, selectors, state, reason, exit_code, timeout, queue_deadline, output_limit, \
             retries_left, created_by, created_at, started_at, finished_at, cancel_requested, \
             attempt, delegate, boot, token FROM tasks ",
            $rest
        )
    };
}

const NEW: many::Into = many::Into {
    table: "tasks",
    columns: "id, scope, kind, selectors, state, reason, exit_code, timeout, queue_deadline, output_limit, \
              retries_left, created_by, created_at, sealed_secrets, work",
    conflict: "",
};
const GET: &str = select!("WHERE id = $1");
const LIST: &str = select!(
    "WHERE (created_at < $1 OR (created_at = $1 AND id < $2)) \
     AND ($3 = '' OR scope = $3 OR (scope > $3 || '/' AND scope < $3 || '0')) \
     AND ($4 = '' OR state = $4) AND ($5 = '' OR delegate = $5) ORDER BY created_at DESC, id DESC LIMIT $6"
);
const QUEUED: &str = select!("WHERE state = 'queued' AND finished_at IS NULL ORDER BY created_at, id");
const OPEN: &str = select!("WHERE state IN ('assigned', 'running') AND finished_at IS NULL ORDER BY created_at, id");
const OPEN_WHERE: &str = select!("WHERE state IN ('assigned', 'running') AND finished_at IS NULL");
const OPEN_OF_TOKEN: &str = select!("WHERE token = $1 AND state IN ('assigned', 'running') AND finished_at IS NULL");
const OPEN_OF_BOOT: &str =
    select!("WHERE delegate = $1 AND boot = $2 AND state IN ('assigned', 'running') AND finished_at IS NULL");
const BY_ATTEMPT: &str = select!("WHERE attempt = $1 OR id = (SELECT task FROM former_attempts WHERE id = $1)");
const NEWEST_WHERE: &str = select!("WHERE attempt IN");
const FORMER_DELEGATE: &str = "SELECT delegate FROM former_attempts WHERE id = $1";
const WORK: &str = "SELECT work, sealed_secrets FROM tasks WHERE id = $1";
const STARTED: &str = "UPDATE tasks SET state = 'running', started_at = $2 WHERE attempt = $1 AND state = 'assigned'";
const FINISH: &str = "UPDATE tasks SET state = $2, exit_code = $3, reason = $4, finished_at = $5, \
     started_at = CASE WHEN $6 = 1 THEN COALESCE(started_at, $5) ELSE started_at END, \
     sealed_secrets = NULL WHERE attempt = $1 AND (state = 'assigned' OR (state = 'running' AND $2 <> 'rejected')) \
     RETURNING id";
const LATE: &str = "INSERT INTO late_results (attempt, task, state, exit_code, reason, at) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (attempt) DO NOTHING";
const END_UNASSIGNED: &str = "UPDATE tasks SET state = $2, reason = $3, finished_at = $4, sealed_secrets = NULL \
     WHERE id = $1 AND state = 'queued'";
const KEEP_FORMER: &str = "INSERT INTO former_attempts (id, task, delegate, boot, token, ended_at) \
     SELECT attempt, id, delegate, boot, token, $2 FROM tasks \
     WHERE attempt = $1 AND state IN ('assigned', 'running') AND retries_left >= $3";
const REQUEUE: &str = "UPDATE tasks SET state = 'queued', retries_left = retries_left - $2, attempt = NULL, \
     delegate = NULL, boot = NULL, token = NULL, assigned_at = NULL, started_at = NULL, \
     queue_deadline = queue_deadline + $2 * ($3 - created_at) WHERE attempt = $1";
const REQUEST_CANCEL: &str = "UPDATE tasks SET cancel_requested = 1 WHERE id = $1 AND finished_at IS NULL";
const LOSE_OF_TOKEN: &str = "UPDATE tasks SET state = 'lost', reason = $2, finished_at = $3, sealed_secrets = NULL \
     WHERE token = $1 AND state IN ('assigned', 'running') AND finished_at IS NULL RETURNING attempt";

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
    many::insert(conn, NEW, new, bind).await
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

/// Those that the filter lets through, newest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(conn: &mut Conn, filter: &TaskFilter, page: &Page) -> Result<Paged<Task>, StoreError> {
    let (at, id) = page.border(Millis::MAX)?;
    let query = sqlx::query(LIST)
        .bind(at)
        .bind(id)
        .bind(page::within(filter.scope.as_ref()))
        .bind(filter.state.map(TaskState::as_str).unwrap_or_default())
        .bind(filter.delegate.map(|id| id.to_string()).unwrap_or_default())
        .bind(page.rows());
    let items = tasks(conn, query).await?;
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

/// The task that has this attempt, or had it: its `attempt` may be a newer one.
///
/// # Errors
/// Those of the database.
pub async fn by_attempt(conn: &mut Conn, attempt: AttemptId) -> Result<Option<Task>, StoreError> {
    conn.maybe(sqlx::query(BY_ATTEMPT).bind(attempt.to_string())).await?.as_ref().map(task).transpose()
}

/// The tasks whose newest attempt is one of these.
///
/// # Errors
/// Those of the database.
pub async fn by_attempts(conn: &mut Conn, attempts: &[AttemptId]) -> Result<Vec<Task>, StoreError> {
    let mut found = Vec::new();
    for chunk in attempts.chunks(many::ROWS_MAX) {
        let text = format!("{NEWEST_WHERE} ({})", many::arguments(0, chunk.len()));
        let query = many::passing(conn, &text).persistent(chunk.len() == 1);
        found.extend(tasks(conn, chunk.iter().fold(query, |query, id| query.bind(id.to_string()))).await?);
    }
    Ok(found)
}

/// The delegate of an attempt that was over before its task's newest one began.
///
/// # Errors
/// Those of the database.
pub async fn former_delegate(conn: &mut Conn, attempt: AttemptId) -> Result<Option<DelegateId>, StoreError> {
    let row = conn.maybe(sqlx::query(FORMER_DELEGATE).bind(attempt.to_string())).await?;
    row.map(|row| row.word("delegate")).transpose()
}

/// What a delegate needs of it.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn work(conn: &mut Conn, id: TaskId) -> Result<Work, StoreError> {
    let row = conn.maybe(sqlx::query(WORK).bind(id.to_string())).await?.ok_or(StoreError::NotFound)?;
    Ok((row.bytes("work")?, row.plain("sealed_secrets")?))
}

/// Gives queued tasks to delegates. One that is not queued (any more) is left out of the answer, and so is one whose
/// delegate has connected anew: its newest connection has been told what it holds, and would not learn of this.
///
/// # Errors
/// Those of the database.
pub async fn assign(conn: &mut Conn, wanted: &[Assign<'_>], now: Millis) -> Result<Vec<Assigned>, StoreError> {
    let mut assigned = Vec::new();
    for chunk in wanted.chunks(many::ROWS_MAX) {
        let text = format!(
            "WITH v (id, attempt, delegate, boot, token, counter) AS (VALUES {}) UPDATE tasks \
             SET state = 'assigned', attempt = v.attempt, delegate = v.delegate, boot = v.boot, token = v.token, \
             assigned_at = ${} FROM v WHERE tasks.id = v.id AND tasks.state = 'queued' \
             AND EXISTS (SELECT 1 FROM delegates d WHERE d.id = v.delegate AND d.boot = v.boot AND d.counter = v.counter) \
             RETURNING tasks.id, work, sealed_secrets",
            many::values(0, chunk.len(), 6),
            6 * chunk.len() + 1
        );
        let mut query = many::passing(conn, &text).persistent(chunk.len() == 1);
        for one in chunk {
            query = query
                .bind(one.task.to_string())
                .bind(one.attempt.id.to_string())
                .bind(one.attempt.delegate.to_string())
                .bind(one.attempt.boot.to_string())
                .bind(one.attempt.token.to_string())
                .bind(integer(one.counter)?);
        }
        for row in conn.all(query.bind(now)).await? {
            let work = (row.bytes("work")?, row.plain("sealed_secrets")?);
            assigned.push(Assigned { task: row.word("id")?, work });
        }
    }
    Ok(assigned)
}

/// Notes that an assigned attempt started; whether it was still waiting for that.
///
/// # Errors
/// Those of the database.
pub async fn started(conn: &mut Conn, attempt: AttemptId, now: Millis) -> Result<bool, StoreError> {
    Ok(conn.run(sqlx::query(STARTED).bind(attempt.to_string()).bind(now)).await? == 1)
}

/// Ends a task by the result of its attempt. A late result is recorded and changes nothing.
///
/// # Errors
/// [`StoreError::Refused`] when the end's state is not a final one.
pub async fn finish(conn: &mut Conn, attempt: AttemptId, end: End<'_>, now: Millis) -> Result<Finish, StoreError> {
    let End { state, exit_code, reason, started } = end;
    must_be_final(state)?;
    let query = sqlx::query(FINISH).bind(attempt.to_string()).bind(state.as_str()).bind(exit_code.map(i64::from));
    let query = query.bind(reason.to_owned()).bind(now).bind(i64::from(started));
    if let Some(row) = conn.maybe(query).await? {
        return Ok(Finish::Recorded(row.word("id")?));
    }
    let Some(task) = by_attempt(conn, attempt).await? else {
        return Ok(Finish::Unknown);
    };
    let same = task.attempt.is_some_and(|newest| newest.id == attempt);
    if same && task.state == state && task.exit_code == exit_code {
        return Ok(Finish::Repeated(task.id));
    }
    let query = sqlx::query(LATE).bind(attempt.to_string()).bind(task.id.to_string()).bind(state.as_str());
    conn.run(query.bind(exit_code.map(i64::from)).bind(reason.to_owned()).bind(now)).await?;
    Ok(Finish::Late(task.id))
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

/// Puts the task of an open attempt back into the queue; `retry` spends one of its retries, for an attempt that
/// may have started. Returns whether it was put back: not when the attempt is over or no retry is left.
///
/// # Errors
/// Those of the database.
pub async fn requeue(conn: &mut Conn, attempt: AttemptId, retry: bool, now: Millis) -> Result<bool, StoreError> {
    let spent = i64::from(retry);
    let query = sqlx::query(KEEP_FORMER).bind(attempt.to_string()).bind(now).bind(spent);
    if conn.run(query).await? == 0 {
        return Ok(false);
    }
    // A further try may wait as long as the first one might; one that never began keeps its time.
    conn.run_one(sqlx::query(REQUEUE).bind(attempt.to_string()).bind(spent).bind(now)).await?;
    Ok(true)
}

/// Ends the tasks of these attempts as lost, as far as they are open; how many were.
///
/// # Errors
/// Those of the database.
pub async fn lose(conn: &mut Conn, attempts: &[AttemptId], reason: &str, now: Millis) -> Result<u64, StoreError> {
    let mut lost = 0;
    for chunk in attempts.chunks(many::ROWS_MAX) {
        let text = format!(
            "UPDATE tasks SET state = 'lost', reason = $1, finished_at = $2, sealed_secrets = NULL \
             WHERE attempt IN ({}) AND state IN ('assigned', 'running')",
            many::arguments(2, chunk.len())
        );
        let query = many::passing(conn, &text).bind(reason.to_owned()).bind(now);
        lost += conn.run(chunk.iter().fold(query, |query, id| query.bind(id.to_string()))).await?;
    }
    Ok(lost)
}

/// Ends every open task that runs under this token as lost; which attempts those were.
///
/// # Errors
/// Those of the database.
pub async fn lose_of_token(
    conn: &mut Conn,
    token: TokenId,
    reason: &str,
    now: Millis,
) -> Result<Vec<AttemptId>, StoreError> {
    let query = sqlx::query(LOSE_OF_TOKEN).bind(token.to_string()).bind(reason.to_owned()).bind(now);
    conn.all(query).await?.iter().map(|row| row.word("attempt")).collect()
}

fn must_be_final(state: TaskState) -> Result<(), StoreError> {
    if state.is_final() { Ok(()) } else { Err(StoreError::refused(format!("{state} is not an end of a task"))) }
}

async fn tasks(conn: &mut Conn, query: Statement<'_>) -> Result<Vec<Task>, StoreError> {
    conn.all(query).await?.iter().map(task).collect()
}

fn task(row: &AnyRow) -> Result<Task, StoreError> {
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
