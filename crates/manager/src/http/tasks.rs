//! Tasks over HTTP.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use legation_api::{
    List, Problem,
    page::DryRun,
    tasks::{self as api, CancelledTask, SubmitTask, Task, TasksQuery},
};
use legation_model::{
    ids::TaskId,
    task::{OUTPUT_LIMIT_DEFAULT, QUEUE_TIMEOUT_DEFAULT, TIMEOUT_DEFAULT},
};
use legation_store::tasks::TaskFilter;
use legation_wire::message::{SecretVar, Work};

use super::{
    request::{Body, Id, Nothing, Params, paged},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal, tasks::NewTask};

/// Submits a task.
#[utoipa::path(post, path = "/api/v1/tasks", tag = "tasks", request_body = SubmitTask,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request submit nothing")),
    responses((status = 201, body = Task), (status = 400, body = Problem), (status = 413, body = Problem)))]
pub(super) async fn submit(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Body<SubmitTask>,
) -> Result<Json<Task>, Refusal> {
    body.value.check()?;
    let task = manager.submit_task(&caller, wanted(body.value), body.once).await?;
    Ok(Json(StatusCode::CREATED, Task::from(&task)))
}

/// Lists tasks.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "tasks", params(TasksQuery),
    responses((status = 200, body = List<Task>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<TasksQuery>,
) -> Result<Json<List<Task>>, Refusal> {
    let filter = TaskFilter { state: query.state, delegate: query.delegate };
    let found = manager.list_tasks(&caller, query.scope, filter, paged(query.limit, query.cursor)?).await?;
    Ok(ok(List { items: found.items.iter().map(Task::from).collect(), next: found.next }))
}

/// Shows a task; while it waits, `reason` says what excludes whom.
#[utoipa::path(get, path = "/api/v1/tasks/{task}", tag = "tasks", params(("task" = String, Path)),
    responses((status = 200, body = Task), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TaskId>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<Task>, Refusal> {
    Ok(ok(Task::from(&manager.explained_task(&caller, id).await?)))
}

/// Asks a task to end. With `dry_run`, only says whether that is possible.
#[utoipa::path(post, path = "/api/v1/tasks/{task}/cancel", tag = "tasks", params(("task" = String, Path), DryRun),
    responses((status = 200, body = CancelledTask), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn cancel(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TaskId>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<CancelledTask>, Refusal> {
    let task = manager.cancel_task(&caller, id, dry_run).await?;
    Ok(ok(CancelledTask { task: Task::from(&task) }))
}

fn wanted(asked: SubmitTask) -> NewTask {
    let secrets = asked.secrets.into_iter().map(|(name, value)| SecretVar { name, value }).collect();
    NewTask {
        scope: asked.scope,
        work: work(asked.work),
        selectors: asked.selectors,
        timeout: asked.timeout_ms.unwrap_or(TIMEOUT_DEFAULT),
        queue_timeout: asked.queue_timeout_ms.unwrap_or(QUEUE_TIMEOUT_DEFAULT),
        output_limit: asked.output_limit.unwrap_or(OUTPUT_LIMIT_DEFAULT),
        secrets,
        retries: asked.retries,
    }
}

fn work(asked: api::Work) -> Work {
    match asked {
        api::Work::Shell(shell) => Work::Shell {
            script: shell.script,
            interpreter: shell.interpreter,
            env: shell.env.into_iter().collect(),
            cwd: shell.cwd,
            stdin: shell.stdin.into_bytes(),
        },
        api::Work::Http(http) => Work::Http {
            method: http.method,
            url: http.url,
            headers: http.headers.into_iter().collect(),
            body: http.body.into_bytes(),
        },
    }
}
