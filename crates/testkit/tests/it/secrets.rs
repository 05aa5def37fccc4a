//! Canaries: secrets that are let loose in the whole system and searched for everywhere afterwards.

use std::{fs, path::PathBuf};

use legation_api::{
    client::Client,
    tokens::CreateToken,
    wraps::{OpenWrap, WRAP_TTL_MAX},
};
use legation_model::{ids::TokenId, secret::SecretText, task::TaskState, token::Token, wrap::WrapCode};
use legation_testkit::{
    Engine, World,
    canary::Canary,
    database, eventually, procfs,
    world::{LONG_WORK, LONG_WORK_PROCESSES},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

on_both!(no_secret_is_anywhere_it_should_not_be);

/// A task's secret.
const TASK_SECRET: &str = "canary-of-a-task-5f1d8c";

async fn no_secret_is_anywhere_it_should_not_be(engine: Engine) {
    let mut world = World::with(engine, &[("LEGATION_LOG", "trace")]).await;
    let token = world.token("canary").await;
    let text = token.value.expose();
    // Where the delegate's owner put the token, and where the admin's key is: there they belong.
    let token_file = world.directory().join("token-file");
    fs::write(&token_file, text).expect("a file");
    let key_file = world.directory().join("admin.key");
    let key = fs::read_to_string(&key_file).expect("the admin's key");
    let environment = [
        ("DELEGATE_TOKEN", ""),
        ("DELEGATE_TOKEN_FILE", token_file.to_str().expect("a text")),
        ("DELEGATE_LOG", "trace"),
    ];
    let delegate = world.delegate_with("canary", &token.value, &environment);
    world.connected(&delegate).await;

    // A value under a one-time code that is opened, and one that waits.
    let (opened, value) = unwrapped(&world).await;
    let (waiting, _) = wrapped(&world, "waiting").await;

    // Each line of the script would give a secret away.
    let script = "echo $SECRET; env; cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline 2>/dev/null";
    let add_secret = |task: &mut legation_api::tasks::SubmitTask| {
        task.secrets = [("SECRET".to_owned(), SecretText::new(TASK_SECRET.to_owned()))].into();
    };
    let task = world.run_with("canary", script, add_secret).await;
    assert_eq!(world.finished(task.id).await.state, TaskState::Succeeded);
    let output = world.output(task.id).await;
    world.run_with("canary", LONG_WORK, add_secret).await;
    let working = async || (world.marked("canary").len() >= LONG_WORK_PROCESSES).then_some(());
    eventually("a task runs while processes are searched", working).await;

    let parsed: Token = text.parse().expect("a token");
    let psk = legation_wire::psk::derive(&parsed.secret, parsed.id, parsed.generation);
    let of_token = [Canary::token(text), Canary::bytes("the psk", psk.expose())];
    let of_task = Canary::text("the task's secret", TASK_SECRET);
    let of_key = Canary::text("the admin's key", key.trim());
    let of_codes = [
        Canary::bytes("the secret of an opened code", opened.secret.expose()),
        Canary::text("an opened code", &opened.reveal().expose()[26..69]),
        Canary::bytes("the secret of a waiting code", waiting.secret.expose()),
        Canary::text("a waiting code", &waiting.reveal().expose()[26..69]),
        Canary::token(value.expose()),
    ];
    let everything: Vec<&Canary> = of_token.iter().chain(&of_codes).chain([&of_task, &of_key]).collect();

    let manager = world.manager().pid().expect("it runs");
    let programs: Vec<u32> = [manager, delegate.pid()].into_iter().chain(procfs::descendants(delegate.pid())).collect();
    let mut found = Vec::new();
    for canary in &everything {
        found.extend(canary.in_bytes(&output).map(|how| format!("output: {how}")));
        found
            .extend(canary.in_bytes(metrics(&world, key.trim()).await.as_bytes()).map(|how| format!("metrics: {how}")));
        found.extend(canary.in_tree(world.directory(), &[&token_file, &key_file]));
        for place in rows(&world, engine).await {
            found.extend(canary.in_tree(&place, &[]));
        }
    }
    for canary in of_token.iter().chain([&of_key]) {
        found.extend(programs.iter().filter_map(|pid| canary.in_process(*pid)));
    }
    let tasks = world.marked("canary");
    found.extend(programs.iter().filter(|pid| !tasks.contains(pid)).filter_map(|pid| of_task.in_process(*pid)));
    assert_eq!(found, Vec::<String>::new());
    // The task's own environment has the secret, or the search was blind; the finest logs were there to be searched.
    assert!(tasks.into_iter().any(|pid| of_task.in_process(pid).is_some()));
    assert!(delegate.process.log().contains("TRACE"));
}

/// Creates a token whose value is under a one-time code.
async fn wrapped(world: &World, name: &str) -> (WrapCode, TokenId) {
    let mut request = CreateToken::new("default".parse().expect("a scope"), name.parse().expect("a name"));
    request.wrap_ttl_ms = Some(WRAP_TTL_MAX);
    let issued = world.client.create_token(&request).await.expect("a token");
    (issued.wrapped.expect("a code").code.expose().parse().expect("a code"), issued.token.id)
}

/// The same, opened by somebody without a key.
async fn unwrapped(world: &World) -> (WrapCode, SecretText) {
    let (code, token) = wrapped(world, "opened").await;
    let nobody = Client::new(world.url(), None, None).expect("a client");
    let opened = nobody.unwrap(&OpenWrap { code: code.reveal() }).await.expect("opened");
    assert_eq!(opened.token, token);
    // What is said to whoever comes second has no secret in it either.
    assert!(nobody.unwrap(&OpenWrap { code: code.reveal() }).await.is_err());
    (code, opened.value)
}

/// Raw files of the database outside of the world's own directory.
async fn rows(world: &World, engine: Engine) -> Vec<PathBuf> {
    match engine {
        Engine::Sqlite => Vec::new(),
        Engine::Postgres => database::files(world.database_url()).await,
    }
}

/// One request by hand: the page as anyone with a key sees it.
async fn metrics(world: &World, key: &str) -> String {
    let mut stream = TcpStream::connect(world.address()).await.expect("the Manager listens");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}
