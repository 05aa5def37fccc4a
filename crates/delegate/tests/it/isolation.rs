//! What a task can learn of the delegate's credential.

use std::{
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

use legation_delegate::confine::{ConfineError, check};
use legation_model::{delegate::Isolation, task::TaskState};
use legation_wire::message::{FromDelegate, ToDelegate};
use rustix::process::Signal;

use crate::{
    manager::{Delegate, Manager, Session, until},
    supervisor::script,
    support::Mark,
};

/// Reads everything that a task should not, and does everything that it should be able to.
const PROBE: &str = r#"
for file in "$STATE/key" "$STATE/delegate" "$STATE"/attempts/*/* "$TOKEN" "$LINK"; do
  cat "$file" >/dev/null 2>&1 && echo "LEAK $file"
  cat "/proc/self/root$file" >/dev/null 2>&1 && echo "LEAK by root $file"
done
mv "$STATE/key" here 2>/dev/null && cat here >/dev/null 2>&1 && echo "LEAK moved"
ln "$TOKEN" there 2>/dev/null && cat there >/dev/null 2>&1 && echo "LEAK linked"
cat "/proc/$DELEGATE/environ" "/proc/$DELEGATE/root$TOKEN" >/dev/null 2>&1 && echo "LEAK process"
set -e
cat "$BESIDE"
mkdir -p a b; echo one > a/x; mv a/x b/y; cat b/y
T=$(mktemp); echo two > "$T"; cat "$T"; rm "$T"
cat /proc/self/stat /etc/passwd > /dev/null; head -c 8 /dev/urandom > /dev/null
cat <<END
three
END
sh -c 'echo four' | cat
"#;

fn probe(directory: &Path, delegate: &Delegate) -> String {
    let name = |name: &str| directory.join(name).display().to_string();
    format!(
        "STATE={} TOKEN={} LINK={} BESIDE={} DELEGATE={}\n{PROBE}",
        name("state"),
        name("token"),
        name("link"),
        name("beside"),
        delegate.child.id().expect("it runs"),
    )
}

/// A directory that is not one where scripts make files.
fn away() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    std::fs::DirBuilder::new().mode(0o700).create(directory.path().join("state")).expect("a directory");
    std::fs::write(directory.path().join("beside"), "beside\n").expect("written");
    std::os::unix::fs::symlink("token", directory.path().join("link")).expect("a link");
    directory
}

fn start(manager: &Manager, directory: &Path, user: Option<&str>) -> Delegate {
    use std::os::unix::fs::PermissionsExt;
    let token = directory.join("token");
    std::fs::write(&token, manager.token.reveal().expose()).expect("written");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("ours");
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("ours");
    Delegate::start_with(manager, |command| {
        command.env_remove("DELEGATE_TOKEN").env("DELEGATE_TOKEN_FILE", &token);
        command.env("DELEGATE_STATE_DIR", directory.join("state"));
        if let Some(user) = user {
            command.env("DELEGATE_TASK_USER", user);
        }
    })
}

async fn output(session: &mut Session, text: &str) -> (String, TaskState) {
    session.assign(&script(text));
    let mut seen = String::new();
    loop {
        match session.message().await {
            FromDelegate::Output { bytes, .. } => seen.push_str(&String::from_utf8_lossy(&bytes)),
            FromDelegate::Finished(end) => return (seen, end.state),
            _ => {}
        }
    }
}

#[tokio::test]
async fn landlock_keeps_the_key_and_the_token_from_tasks_and_nothing_else() {
    let directory = away();
    let state = directory.path().join("state");
    match check(&[state], Path::new("/"), &std::env::temp_dir()) {
        // Nothing to show on such a kernel, or in such a checkout.
        Err(ConfineError::Unsupported | ConfineError::Scratch(..)) => return,
        checked => checked.expect("it can be confined"),
    }
    let manager = Manager::start().await;
    let delegate = start(&manager, directory.path(), None);
    let (mut session, hello) = manager.session().await;
    assert_eq!(hello.isolation, Isolation::Landlock, "{}", delegate.log());
    let (seen, state) = output(&mut session, &probe(directory.path(), &delegate)).await;
    assert_eq!((seen.as_str(), state), ("beside\none\ntwo\nthree\nfour\n", TaskState::Succeeded));
}

#[tokio::test]
async fn where_scripts_make_files_nothing_is_promised() {
    let manager = Manager::start().await;
    let delegate = Delegate::start(&manager);
    let (_session, hello) = manager.session().await;
    // The state directory lies below the temporary directory.
    assert_eq!(hello.isolation, Isolation::None);
    assert!(delegate.log().contains("tasks can read what this delegate can"));
}

#[tokio::test]
async fn another_user_cannot_read_the_key_or_the_token_and_dies_all_the_same() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let directory = away();
    let manager = Manager::start().await;
    let delegate = start(&manager, directory.path(), Some("nobody"));
    let (mut session, hello) = manager.session().await;
    assert_eq!(hello.isolation, Isolation::User);
    let (seen, state) = output(&mut session, &probe(directory.path(), &delegate)).await;
    assert_eq!((seen.as_str(), state), ("beside\none\ntwo\nthree\nfour\n", TaskState::Succeeded));
    let mark = Mark::new();
    let text = format!("export {}={}; setsid sleep 600 & trap '' TERM; id -u; sleep 600", "TEST_MARK", mark.value);
    let task = script(&text);
    session.assign(&task);
    session.await_output("65534\n").await;
    until("it runs", || mark.alive() >= 2).await;
    session.say(ToDelegate::Cancel { attempt: task.attempt, grace: 50 });
    assert_eq!(session.finished().await.state, TaskState::Cancelled);
    assert_eq!(mark.alive(), 0);
}

#[tokio::test]
async fn nobody_reads_the_memory_of_the_delegate_not_even_its_own_user() {
    let manager = Manager::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut delegate = if rustix::process::getuid().is_root() {
        // Root owns its own processes' files either way: what it takes to see the difference is another user.
        Delegate::start_with(&manager, |command| {
            std::os::unix::fs::chown(directory.path(), Some(65534), Some(65534)).expect("root may");
            command.uid(65534).gid(65534).env("DELEGATE_STATE_DIR", directory.path());
        })
    } else {
        Delegate::start(&manager)
    };
    let (_session, _) = manager.session().await;
    let pid = delegate.child.id().expect("it runs");
    // proc(5): the files of a process that is not dumpable belong to root.
    let owner = |file: &str| std::fs::metadata(format!("/proc/{pid}/{file}")).expect("it runs").uid();
    assert_eq!((owner("mem"), owner("environ")), (0, 0));
    delegate.signal(Signal::TERM);
    assert_eq!(delegate.exit_code().await, Some(0));
}
