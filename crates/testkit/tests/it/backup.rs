//! Backups: taken while the Manager runs, restored on either engine, and killed at any moment.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use legation_api::{receipts::Receipt, scopes::UpdateScope};
use legation_model::{
    reveal::Reveal,
    secret::SecretText,
    token::{Token, TokenStatus},
};
use legation_testkit::{Engine, Process, World, canary::Canary, eventually, eventually::PATIENCE, seed, world::Issued};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, Row as _};

on_both!(
    a_backup_of_a_running_manager_is_restored_on_either_engine,
    a_backup_is_of_one_moment,
    what_was_revoked_since_is_asked_for_and_revoked_again,
    nothing_is_restored_that_would_not_work,
    a_backup_that_is_killed_leaves_a_whole_file_or_none,
    a_restore_that_is_killed_leaves_no_half_database,
    keys_rotate_wherever_the_rotation_is_killed,
);

/// Code with which a delegate ends whose token is refused.
const REFUSED: i32 = 78;
/// How often a command is killed in one test.
const KILLS: u32 = 8;
/// Rows that make a backup long enough to be killed in it.
const MANY: u32 = 30_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours is text")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn done(world: &World, arguments: &[&str]) -> Value {
    let output = world.manager_command(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

async fn refused(world: &World, arguments: &[&str]) -> String {
    let output = world.manager_command(arguments).await;
    assert!(!output.status.success(), "{arguments:?} must fail");
    said(&output)
}

async fn backup(world: &World) -> PathBuf {
    let file = world.directory().join(format!("backup-{:016x}", rand::random::<u64>()));
    done(world, &["backup", text(&file), "-o", "json"]).await;
    file
}

/// An empty database; of the embedded kind in a directory of its own.
async fn empty(world: &World, engine: Engine) -> String {
    let directory = world.directory().join(format!("restored-{:016x}", rand::random::<u64>()));
    fs::create_dir(&directory).expect("a directory");
    engine.create(&directory).await
}

/// Restores into a new database, on which the Manager then runs.
async fn restored(world: &mut World, engine: Engine, file: &Path, decision: &[&str]) -> Value {
    let url = empty(world, engine).await;
    world.move_to(&url);
    let restored = done(world, &[&["restore", text(file), "-o", "json"], decision].concat()).await;
    world.restart_manager().await;
    restored
}

/// A Manager that must not become ready.
async fn does_not_start(world: &World) -> String {
    let mut program = world.manager_program(&["--listen", "127.0.0.1:0"]);
    let ended = tokio::time::timeout(PATIENCE, program.kill_on_drop(true).output()).await;
    let output = ended.expect("no Manager starts on this database").expect("the Manager's program starts");
    assert!(!output.status.success());
    said(&output)
}

async fn a_backup_of_a_running_manager_is_restored_on_either_engine(engine: Engine) {
    let mut world = World::start(engine).await;
    let token = world.token("kept").await;
    let delegate = world.delegate("keeper", &token);
    world.connected(&delegate).await;
    let secret = "canary-of-a-backup-93ab1e";
    let add = |task: &mut legation_api::tasks::SubmitTask| {
        task.secrets = [("SECRET".to_owned(), SecretText::new(secret.to_owned()))].into();
    };
    let waiting = world.run_with("nobody", "echo $SECRET", add).await;
    let ran = world.run("keeper", "echo kept").await;
    world.finished(ran.id).await;

    log_in(&world).await;
    let file = backup(&world).await;
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let verified = done(&world, &["backup", "--verify", text(&file), "-o", "json"]).await;
    assert_eq!(verified["bytes"], fs::metadata(&file).expect("a file").len());
    let value: Token = token.value.expose().parse().expect("a token");
    let psk = legation_wire::psk::derive(&value.secret, value.id, value.generation);
    let kek = fs::read_to_string(world.directory().join("config/kek")).expect("a key");
    let key = fs::read_to_string(world.directory().join("admin.key")).expect("a key");
    for canary in [
        Canary::token(token.value.expose()),
        Canary::bytes("the psk", psk.expose()),
        Canary::text("the task's secret", secret),
        Canary::text("the key-encryption key", kek.trim()),
        Canary::text("the admin's key", key.trim()),
    ] {
        assert_eq!(canary.in_bytes(&fs::read(&file).expect("a file")), None);
    }
    assert!(refused(&world, &["backup", text(&file)]).await.contains("is there already"));

    // What happened after it is not in it.
    world.token("later").await;
    world.manager().kill().await;
    for other in [Engine::Sqlite, Engine::Postgres] {
        let restored = restored(&mut world, other, &file, &["--accept-resurrected-tokens"]).await;
        assert_eq!(restored["backup"]["rows"], verified["rows"]);
        assert_eq!(count(&world, "SELECT COUNT(*) FROM logins").await, 0, "people log in again");
        assert_eq!(restored["accepted_tokens"], 1);
        world.connected(&delegate).await;
        let again = world.run("keeper", "echo again").await;
        world.finished(again.id).await;
        assert_eq!(world.output(again.id).await, b"again\n");
        assert_eq!(world.output(ran.id).await, b"kept\n");
        assert_eq!(world.task(waiting.id).await.created_at, waiting.created_at);
        let names: Vec<_> = world.client.tokens(&Default::default()).await.expect("a list").items;
        assert!(names.iter().all(|token| token.name.as_str() != "later"), "{names:?}");
        world.revoke(&world.token("fresh").await).await;
        world.manager().kill().await;
    }
}

/// A console session, past the Manager.
async fn log_in(world: &World) {
    sqlx::any::install_default_drivers();
    let mut conn = AnyConnection::connect(world.database_url()).await.expect("a connection");
    let text = "INSERT INTO logins (id, principal, method, hash, address, agent, created_at, authenticated_at, \
         last_used_at, expires_at) VALUES ('x', 'prn_0000000000000000000000', 'password', $1, '', '', 1, 1, 1, $2)";
    sqlx::query(text).bind(vec![1_u8]).bind(i64::MAX).execute(&mut conn).await.expect("a row");
    assert_eq!(count(world, "SELECT COUNT(*) FROM logins").await, 1);
}

async fn count(world: &World, text: &str) -> i64 {
    sqlx::any::install_default_drivers();
    let mut conn = AnyConnection::connect(world.database_url()).await.expect("a connection");
    conn.fetch_one(AssertSqlSafe(text.to_owned())).await.expect("a row").get(0)
}

async fn a_backup_is_of_one_moment(engine: Engine) {
    let mut world = World::start(engine).await;
    fill(&world, &world.token("many").await).await;
    let client = world.client.clone();
    let writing = tokio::spawn(async move {
        for number in 0.. {
            let name = format!("made-{number}").parse().expect("a name");
            let request = legation_api::tokens::CreateToken::new(legation_testkit::world::scope(), name);
            if client.create_token(&request).await.is_err() {
                return number;
            }
        }
        0
    });
    let tokens = "SELECT COUNT(*) FROM tokens WHERE name LIKE 'made-%'";
    eventually("some are made", async || (count(&world, tokens).await > 0).then_some(())).await;
    let file = backup(&world).await;
    world.manager().kill().await;
    let made = writing.await.expect("it ends with the Manager");
    restored(&mut world, engine, &file, &["--accept-resurrected-tokens"]).await;
    let tokens = count(&world, tokens).await;
    let told = count(&world, "SELECT COUNT(*) FROM audit WHERE action = 'token.create'").await;
    assert!(0 < tokens && tokens < made, "{tokens} of {made}: the backup was taken while tokens were made");
    assert_eq!(told, tokens + 1, "a token and its record are there together or not at all");
}

async fn audit_export(world: &World) -> PathBuf {
    let path = world.directory().join("audit.jsonl");
    let mut export = world.client.export_audit(0).await.expect("an export");
    let mut file = fs::File::create(&path).expect("a file");
    while let Some(part) = export.next().await.expect("the export goes on") {
        file.write_all(&part).expect("written");
    }
    path
}

/// Values that are kept to be shown again.
const VALUES: &str = "SELECT COUNT(*) FROM token_values";

async fn what_was_revoked_since_is_asked_for_and_revoked_again(engine: Engine) {
    let mut world = World::start(engine).await;
    let account = "default".parse().expect("a scope");
    let audited = UpdateScope { reveal: Some(Reveal::Audited), ..UpdateScope::default() };
    world.client.update_scope(&account, 1, &audited).await.expect("the account keeps values");
    let (kept, doomed, told) = (world.token("kept").await, world.token("doomed").await, world.token("told").await);
    let mut delegate = world.delegate("doomed", &doomed);
    world.connected(&delegate).await;
    let file = backup(&world).await;
    // Frozen, so that only what is restored can stop it.
    delegate.process.pause();
    world.revoke(&doomed).await;
    let export = audit_export(&world).await;
    let receipt: Receipt = world.revoke(&told).await;
    let receipt_file = world.directory().join("receipt.json");
    fs::write(&receipt_file, serde_json::to_string_pretty(&receipt).expect("JSON")).expect("written");
    world.manager().kill().await;

    let url = empty(&world, engine).await;
    world.move_to(&url);
    let said = refused(&world, &["restore", text(&file)]).await;
    assert!(said.contains("--revoked") && said.contains("--accept-resurrected-tokens"), "{said}");
    let nothing = world.directory().join("nothing.jsonl");
    fs::write(&nothing, "").expect("written");
    for silent in [&nothing, &receipt_file] {
        let said = refused(&world, &["restore", text(&file), "--revoked", text(silent)]).await;
        assert!(said.contains("--accept-resurrected-tokens"), "it does not say what else was revoked: {said}");
    }
    let flags = ["--revoked", text(&export), "--revoked", text(&receipt_file)];
    let done = done(&world, &[&["restore", text(&file), "-o", "json"], &flags[..]].concat()).await;
    assert_eq!((&done["taken_away"]["tokens"], &done["accepted_tokens"]), (&2.into(), &1.into()), "{done}");
    let known_until = done["known_until"].as_i64();
    assert!(known_until.is_some() && known_until < Some(receipt.revoked_at), "a receipt tells of one token: {done}");
    assert_eq!(count(&world, VALUES).await, 1, "a value goes with its token");
    world.restart_manager().await;
    delegate.process.resume();
    assert_eq!(delegate.process.exit(Duration::from_secs(30)).await.code(), Some(REFUSED));
    for token in [&doomed, &told] {
        let receipt = eventually("its receipt is complete", async || {
            let token = world.client.token(token.id).await.expect("a token");
            assert_eq!(token.status, TokenStatus::Revoked);
            let receipt = world.client.receipt(token.receipt.expect("a receipt")).await.expect("a receipt");
            receipt.completed_at.map(|_| receipt)
        })
        .await;
        assert!(receipt.reason.contains("before the restore"), "{receipt:?}");
        assert!(!receipt.statements.is_empty());
    }
    assert_eq!(world.client.token(kept.id).await.expect("a token").status, TokenStatus::Active);
    let export = fs::read_to_string(audit_export(&world).await).expect("an export");
    assert!(export.contains("database.restore"));
    world.manager().kill().await;

    let all = restored(&mut world, engine, &file, &["--revoke-all-tokens"]).await;
    assert_eq!((&all["taken_away"]["tokens"], &all["accepted_tokens"]), (&3.into(), &0.into()));
    assert_eq!(count(&world, VALUES).await, 0);
    assert_eq!(world.client.token(kept.id).await.expect("a token").status, TokenStatus::Revoked);
}

async fn nothing_is_restored_that_would_not_work(engine: Engine) {
    const DECIDED: &str = "--accept-resurrected-tokens";
    let mut world = World::start(engine).await;
    let token = world.token("kept").await;
    let file = backup(&world).await;
    let said = refused(&world, &["restore", text(&file), DECIDED]).await;
    assert!(said.contains("stop it first"), "a Manager runs: {said}");
    world.manager().kill().await;
    let said = eventually("the lock is free", async || {
        let said = refused(&world, &["restore", text(&file), DECIDED]).await;
        (!said.contains("stop it first")).then_some(said)
    })
    .await;
    assert!(said.contains("not empty"), "{said}");
    world.restart_manager().await;
    assert_eq!(world.client.token(token.id).await.expect("it is unharmed").status, TokenStatus::Active);
    world.manager().kill().await;

    let url = empty(&world, engine).await;
    world.move_to(&url);
    let whole = fs::read(&file).expect("a file");
    let damaged = world.directory().join("damaged");
    fs::write(&damaged, &whole[..whole.len() - 1]).expect("written");
    for arguments in [&["restore", text(&damaged), DECIDED][..], &["backup", "--verify", text(&damaged)]] {
        let said = refused(&world, arguments).await;
        assert!(said.contains("cut off or damaged"), "{said}");
    }
    let said = refused(&world, &["restore", text(&world.directory().join("config/kek")), DECIDED]).await;
    assert!(said.contains("no backup"), "{said}");

    let kek = world.directory().join("config/kek");
    let right = fs::read_to_string(&kek).expect("a key");
    fs::write(&kek, "00".repeat(32)).expect("written");
    let said = refused(&world, &["restore", text(&file), DECIDED]).await;
    assert!(said.contains("does not open"), "{said}");
    let said = does_not_start(&world).await;
    assert!(said.contains("interrupted"), "nothing is in it: {said}");
    fs::write(&kek, right).expect("written");
    done(&world, &["restore", text(&file), DECIDED, "-o", "json"]).await;
    world.restart_manager().await;
    assert_eq!(world.client.token(token.id).await.expect("a token").status, TokenStatus::Active);
}

/// Rows that no delegate made, past the Manager.
async fn fill(world: &World, token: &Issued) {
    sqlx::any::install_default_drivers();
    let text = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) \
         INSERT INTO token_uses (token, delegate, address, name, first_at, last_at, uses) \
         SELECT '{}', 'dlg_' || CAST(i AS TEXT), '192.0.2.1', 'many', i, i, 1 FROM n",
        token.id
    );
    let mut conn = AnyConnection::connect(world.database_url()).await.expect("a connection");
    conn.execute(AssertSqlSafe(text)).await.expect("rows");
}

/// Runs a command to its end; how long that took.
async fn took(world: &World, arguments: &[&str]) -> Duration {
    let begun = Instant::now();
    done(world, arguments).await;
    begun.elapsed()
}

/// A moment within a run that takes this long, or hardly behind it.
fn moment(chance: &mut ChaCha8Rng, whole: Duration) -> Duration {
    whole.mul_f64(chance.random_range(0.0..1.1))
}

/// Starts a command and kills it at a moment; whether it was killed before it was done.
async fn killed(world: &World, arguments: &[&str], moment: Duration) -> bool {
    let log = world.directory().join("killed.log");
    let mut process = Process::spawn("killed", &mut world.manager_program(arguments), &log).expect("it starts");
    // The moment itself is what is tested.
    let ended = tokio::time::timeout(moment, process.exit(Duration::from_secs(60))).await;
    if ended.is_err() {
        process.kill().await;
    }
    ended.is_err()
}

async fn a_backup_that_is_killed_leaves_a_whole_file_or_none(engine: Engine) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed::seed());
    let world = World::start(engine).await;
    fill(&world, &world.token("many").await).await;
    let (file, first) = (world.directory().join("backup"), world.directory().join("first"));
    let whole = took(&world, &["backup", text(&first), "-o", "json"]).await;
    for _ in 0..KILLS {
        let killed = killed(&world, &["backup", text(&file)], moment(&mut chance, whole)).await;
        assert!(killed || file.exists());
        if file.exists() {
            done(&world, &["backup", "--verify", text(&file), "-o", "json"]).await;
            fs::remove_file(&file).expect("removed");
        }
    }
    let whole = done(&world, &["backup", text(&file), "-o", "json"]).await;
    assert!(whole["rows"].as_u64() > Some(u64::from(MANY)), "{whole}");
    assert!(!world.directory().join("backup.half").exists());
}

async fn a_restore_that_is_killed_leaves_no_half_database(engine: Engine) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed::seed());
    let mut world = World::start(engine).await;
    let token = world.token("many").await;
    fill(&world, &token).await;
    let delegate = world.delegate("keeper", &token);
    world.connected(&delegate).await;
    let file = backup(&world).await;
    world.manager().kill().await;
    let arguments = ["restore", text(&file), "--accept-resurrected-tokens", "-o", "json"];
    let first = empty(&world, engine).await;
    world.move_to(&first);
    let length = took(&world, &arguments).await;
    let url = empty(&world, engine).await;
    world.move_to(&url);
    let mut whole = false;
    for _ in 0..KILLS {
        whole |= !killed(&world, &arguments, moment(&mut chance, length)).await;
        if whole {
            break;
        }
        let mut conn = AnyConnection::connect(&url).await.ok();
        let tables = match &mut conn {
            Some(conn) => conn.fetch_all("SELECT * FROM tokens").await.map(|rows| rows.len()),
            None => Ok(0),
        };
        if tables.is_ok_and(|rows| rows > 0) {
            // It was killed behind its commit.
            whole = true;
            break;
        }
        let marked = match &mut conn {
            Some(conn) => conn.fetch_all("SELECT * FROM restore_unfinished").await.is_ok(),
            None => false,
        };
        drop(conn);
        if marked {
            let said = does_not_start(&world).await;
            assert!(said.contains("interrupted") || said.contains("stop it first"), "{said}");
        }
    }
    if !whole {
        eventually("the lock is free", async || {
            let output = world.manager_command(&arguments).await;
            assert!(output.status.success() || said(&output).contains("stop it first"), "{}", said(&output));
            output.status.success().then_some(())
        })
        .await;
    }
    let said = refused(&world, &arguments).await;
    assert!(said.contains("not empty"), "{said}");
    world.restart_manager().await;
    world.connected(&delegate).await;
    let used = world.client.token(token.id).await.expect("a token");
    assert_eq!(used.status, TokenStatus::Active);
}

async fn keys_rotate_wherever_the_rotation_is_killed(engine: Engine) {
    const COMMANDS: [&[&str]; 2] = [&["manager-key", "rotate"], &["kek", "rotate"]];
    let mut chance = ChaCha8Rng::seed_from_u64(seed::seed());
    let mut world = World::start(engine).await;
    let mut delegates = Vec::new();
    for round in 0..3 {
        let token = world.token(&format!("token-{round}")).await;
        let delegate = world.delegate(&format!("delegate-{round}"), &token);
        world.connected(&delegate).await;
        delegates.push(delegate);
        world.manager().kill().await;
        for command in COMMANDS {
            let begun = Instant::now();
            rotated(&world, command).await;
            let whole = begun.elapsed();
            for _ in 0..KILLS {
                killed(&world, command, moment(&mut chance, whole)).await;
            }
            if round != 1 {
                // In the other round a start has to go on with whatever the last kill left.
                rotated(&world, command).await;
            }
        }
        world.restart_manager().await;
        for delegate in &delegates {
            world.connected(delegate).await;
        }
        let new = world.token(&format!("new-{round}")).await;
        world.revoke(&new).await;
    }
    assert!(!world.directory().join("config/kek.new").exists());
}

/// Runs a rotation to its end; a server may need a moment to notice that one before was killed.
async fn rotated(world: &World, command: &[&str]) {
    eventually("it is done", async || {
        let output = world.manager_command(command).await;
        assert!(output.status.success() || said(&output).contains("stop it first"), "{}", said(&output));
        output.status.success().then_some(())
    })
    .await;
}
