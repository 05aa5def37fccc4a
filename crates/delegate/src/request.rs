//! The HTTP executor: one request, its body as the output.

use std::time::Duration;

use futures_util::StreamExt;
use legation_model::task::TaskState;
use legation_wire::message::{Assignment, Finished, Stream, Work};
use reqwest::{Client, Method, Response, redirect};
use tokio::sync::watch;

use crate::{
    output::{Output, Piece},
    policy::Policy,
    runner::{Running, Teller, Told, Wanted, ended},
    supervisor::order::Report,
};

/// Redirects that are followed, each checked against the policy.
const REDIRECTS_MAX: usize = 10;

/// Sends the request of this assignment.
pub fn begin(assignment: Assignment, policy: Policy, wanted: Wanted, tell: Teller) -> Running {
    let (sender, receiver) = watch::channel(wanted);
    tokio::spawn(attend(assignment, policy, receiver, tell));
    Running { wanted: sender }
}

async fn attend(assignment: Assignment, policy: Policy, wanted: watch::Receiver<Wanted>, tell: Teller) {
    let attempt = assignment.attempt;
    let mut output = Output::new(assignment.output_limit, &assignment.secrets);
    let _ = tell.send((attempt, Told::Report(Report::Started))).await;
    let timeout = tokio::time::sleep(Duration::from_millis(assignment.timeout));
    let mut end = tokio::select! {
        end = exchange(&assignment, policy, &mut output, &tell) => end,
        () = timeout => ended(attempt, TaskState::TimedOut, format!("ran longer than {} ms", assignment.timeout)),
        () = unwanted(wanted) => ended(attempt, TaskState::Cancelled, ""),
    };
    report(&assignment, output.finish(), &tell).await;
    (end.output_bytes, end.dropped_bytes) = (output.kept(), output.dropped());
    let _ = tell.send((attempt, Told::Report(Report::Ended(end)))).await;
    let _ = tell.send((attempt, Told::Gone)).await;
}

/// Until a cancel, or until the agent lets go.
async fn unwanted(mut wanted: watch::Receiver<Wanted>) {
    let _ = wanted.wait_for(|wanted| wanted.cancel.is_some()).await;
}

async fn exchange(assignment: &Assignment, policy: Policy, output: &mut Output, tell: &Teller) -> Finished {
    let attempt = assignment.attempt;
    let answer = match send(assignment, policy).await {
        Ok(answer) => answer,
        Err(reason) => return ended(attempt, TaskState::Failed, reason),
    };
    let status = answer.status();
    if let Err(reason) = body(assignment, answer, output, tell).await {
        return ended(attempt, TaskState::Failed, reason);
    }
    let failed = status.as_u16() >= 400;
    let (state, reason) = match failed {
        true => (TaskState::Failed, format!("the server answered {status}")),
        false => (TaskState::Succeeded, String::new()),
    };
    Finished { exit_code: Some(status.as_u16().into()), ..ended(attempt, state, reason) }
}

async fn send(assignment: &Assignment, policy: Policy) -> Result<Response, String> {
    let Work::Http { method, url, headers, body } = &assignment.work else {
        return Err("not an HTTP task".to_owned());
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is not an HTTP method"))?;
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name, fill(value, assignment))).collect();
    let secret = headers.iter().any(|(_, value)| holds_secret(value, assignment));
    let mut request = client(policy, secret)?.request(method, url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(body.clone()).send().await.map_err(|error| explain(&error))
}

/// A header may name a secret as `${NAME}`: a request has no environment to read it from.
fn fill(value: &str, assignment: &Assignment) -> String {
    let fill = |text: String, secret: &legation_wire::message::SecretVar| {
        text.replace(&format!("${{{}}}", secret.name), secret.value.expose())
    };
    assignment.secrets.iter().fold(value.to_owned(), fill)
}

fn holds_secret(value: &str, assignment: &Assignment) -> bool {
    let mut secrets = assignment.secrets.iter().map(|secret| secret.value.expose());
    secrets.any(|secret| !secret.is_empty() && value.contains(secret))
}

/// Made for each request, because a delegate without HTTP tasks should not pay for it. Headers go along with a
/// redirect, so one that holds a secret keeps the request at the origin that the task named.
fn client(policy: Policy, secret: bool) -> Result<Client, String> {
    let redirects = redirect::Policy::custom(move |attempt| match policy.check_host(attempt.url()) {
        _ if attempt.previous().len() > REDIRECTS_MAX => attempt.error("too many redirects"),
        _ if secret && leaves(&attempt) => attempt.error(
            "it was redirected to another origin, and a header holds a secret: name that origin in the task's URL",
        ),
        Ok(()) => attempt.follow(),
        Err(reason) => attempt.error(reason),
    });
    // A `Referer` would show one host the URL of another.
    Client::builder().redirect(redirects).referer(false).build().map_err(|error| explain(&error))
}

/// Whether a redirect goes to another scheme, host or port than the request before it.
fn leaves(attempt: &redirect::Attempt<'_>) -> bool {
    attempt.previous().last().is_none_or(|from| from.origin() != attempt.url().origin())
}

async fn body(assignment: &Assignment, answer: Response, output: &mut Output, tell: &Teller) -> Result<(), String> {
    let mut parts = answer.bytes_stream();
    // Beyond the limit the rest is not even fetched.
    while !output.is_full() {
        match parts.next().await {
            Some(Ok(part)) => report(assignment, output.push(Stream::Stdout, &part), tell).await,
            Some(Err(error)) => return Err(explain(&error)),
            None => break,
        }
    }
    Ok(())
}

async fn report(assignment: &Assignment, pieces: Vec<Piece>, tell: &Teller) {
    for Piece { stream, bytes } in pieces {
        let report = Report::Output { stream, bytes };
        let _ = tell.send((assignment.attempt, Told::Report(report))).await;
    }
}

/// The whole chain of causes, without the URL, which may hold a secret.
fn explain(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() { "cannot connect".to_owned() } else { "the request failed".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}
