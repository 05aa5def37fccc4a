//! The life of an attempt. A task's newest one stands in the task's own row, so that each step is one statement; its
//! WHERE is the guard, so that a step is taken at most once and never backwards. Steps that are reported at the same time
//! share a statement.

use legation_model::{
    Millis,
    ids::{AttemptId, DelegateId, TaskId, TokenId},
    task::{Attempt, Task, TaskState},
};

use crate::{
    Conn, StoreError, many,
    row::{Columns, integer},
    tasks::{must_be_final, select_tasks, task, tasks},
};

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

const BY_ATTEMPT: &str = select_tasks!("WHERE attempt = $1 OR id = (SELECT task FROM former_attempts WHERE id = $1)");
const NEWEST_WHERE: &str = select_tasks!("WHERE attempt IN");
const FORMER_DELEGATE: &str = "SELECT delegate FROM former_attempts WHERE id = $1";
const WORK: &str = "SELECT work, sealed_secrets FROM tasks WHERE id = $1";
const LATE: &str = "INSERT INTO late_results (attempt, task, state, exit_code, reason, at) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (attempt) DO NOTHING";
const KEEP_FORMER: &str = "INSERT INTO former_attempts (id, task, delegate, boot, token, ended_at) \
     SELECT attempt, id, delegate, boot, token, $2 FROM tasks \
     WHERE attempt = $1 AND state IN ('assigned', 'running') AND retries_left >= $3";
const REQUEUE: &str = "UPDATE tasks SET state = 'queued', retries_left = retries_left - $2, attempt = NULL, \
     delegate = NULL, boot = NULL, token = NULL, assigned_at = NULL, started_at = NULL, \
     queue_deadline = queue_deadline + $2 * ($3 - created_at) WHERE attempt = $1";
const LOSE_OF_TOKEN: &str = "UPDATE tasks SET state = 'lost', reason = $2, finished_at = $3, sealed_secrets = NULL \
     WHERE token = $1 AND state IN ('assigned', 'running') AND finished_at IS NULL RETURNING attempt";

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
             AND EXISTS (SELECT 1 FROM delegates d WHERE d.id = v.delegate AND d.boot = v.boot AND d.counter = v.counter \
             AND d.status = 'allowed') \
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

/// Notes that assigned attempts started, as far as they still wait for that; how many did.
///
/// # Errors
/// Those of the database.
pub async fn started(conn: &mut Conn, attempts: &[AttemptId], now: Millis) -> Result<u64, StoreError> {
    let mut started = 0;
    for chunk in attempts.chunks(many::ROWS_MAX) {
        let text = format!(
            "UPDATE tasks SET state = 'running', started_at = $1 WHERE attempt IN ({}) AND state = 'assigned'",
            many::arguments(1, chunk.len())
        );
        let query = many::passing(conn, &text).persistent(chunk.len() == 1).bind(now);
        started += conn.run(chunk.iter().fold(query, |query, id| query.bind(id.to_string()))).await?;
    }
    Ok(started)
}

/// Ends open tasks by the results of their attempts, none of which may be there twice; which those were. What became of
/// the others [`finish`] says, one by one.
///
/// # Errors
/// [`StoreError::Refused`] when an end's state is not a final one.
pub async fn finish_open(
    conn: &mut Conn,
    ends: &[(AttemptId, End<'_>)],
    now: Millis,
) -> Result<Vec<AttemptId>, StoreError> {
    let mut ended = Vec::with_capacity(ends.len());
    for chunk in ends.chunks(many::ROWS_MAX) {
        let text = format!(
            "WITH v (attempt, state, exit_code, reason, started, at) AS (VALUES {}) UPDATE tasks \
             SET state = v.state, exit_code = v.exit_code, reason = v.reason, finished_at = v.at, sealed_secrets = NULL, \
             started_at = CASE WHEN v.started = 1 THEN COALESCE(tasks.started_at, v.at) ELSE tasks.started_at END \
             FROM v WHERE tasks.attempt = v.attempt \
             AND (tasks.state = 'assigned' OR (tasks.state = 'running' AND v.state <> 'rejected')) \
             RETURNING tasks.attempt",
            many::values(0, chunk.len(), 6)
        );
        let mut query = many::passing(conn, &text).persistent(chunk.len() == 1);
        for (attempt, end) in chunk {
            must_be_final(end.state)?;
            query = query.bind(attempt.to_string()).bind(end.state.as_str()).bind(end.exit_code.map(i64::from));
            query = query.bind(end.reason.to_owned()).bind(i64::from(end.started)).bind(now);
        }
        for row in conn.all(query).await? {
            ended.push(row.word("attempt")?);
        }
    }
    Ok(ended)
}

/// Ends a task by the result of its attempt. A late result is recorded and changes nothing.
///
/// # Errors
/// [`StoreError::Refused`] when the end's state is not a final one.
pub async fn finish(conn: &mut Conn, attempt: AttemptId, end: End<'_>, now: Millis) -> Result<Finish, StoreError> {
    let End { state, exit_code, reason, .. } = end;
    let recorded = !finish_open(conn, &[(attempt, end)], now).await?.is_empty();
    let Some(task) = by_attempt(conn, attempt).await? else {
        return Ok(Finish::Unknown);
    };
    if recorded {
        return Ok(Finish::Recorded(task.id));
    }
    let same = task.attempt.is_some_and(|newest| newest.id == attempt);
    if same && task.state == state && task.exit_code == exit_code {
        return Ok(Finish::Repeated(task.id));
    }
    let query = sqlx::query(LATE).bind(attempt.to_string()).bind(task.id.to_string()).bind(state.as_str());
    conn.run(query.bind(exit_code.map(i64::from)).bind(reason.to_owned()).bind(now)).await?;
    Ok(Finish::Late(task.id))
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
