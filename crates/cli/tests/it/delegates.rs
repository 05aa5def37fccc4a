//! Delegates: approved, refused, stopped, allowed, and what is said about a clone.

use insta::assert_snapshot;
use legation_api::delegates::{CloneAccount, CloneSide, Delegate, StoppedDelegate};
use legation_cli::exit_codes;
use legation_model::{delegate::DelegateStatus, ids::BootId, token::Enrolment};

use crate::{
    fake::Fake,
    nouns::{AT, delegate, list},
    run::Home,
};

fn line(verb: &str, dry_run: bool) -> String {
    format!("POST /api/v1/delegates/{}/{verb}?dry_run={dry_run}", delegate().id)
}

fn stopped(enrolment: Enrolment) -> StoppedDelegate {
    StoppedDelegate { delegate: delegate(), attempts_lost: 2, enrolment, token_accepted: true }
}

async fn ready(status: DelegateStatus) -> Fake {
    let fake = Fake::start().await;
    let shown = Delegate { status, ..delegate() };
    let stop = StoppedDelegate { delegate: shown.clone(), ..stopped(Enrolment::Open) };
    fake.on(&format!("GET /api/v1/delegates/{}", delegate().id), &shown);
    fake.on(&line("stop", true), &stop).on(&line("stop", false), &stopped(Enrolment::Open));
    fake.on(&line("allow", true), &shown).on(&line("allow", false), &delegate());
    fake
}

#[tokio::test]
async fn a_stop_asks_and_says_whether_it_can_come_back() {
    let fake = ready(DelegateStatus::Allowed).await;
    let id = delegate().id.to_string();
    let home = Home::of(&fake);
    assert_eq!(home.run(&["delegate", "stop", &id]).await.code, i32::from(exit_codes::NOT_CONFIRMED));
    let dry = home.run(&["delegate", "stop", &id, "--dry-run"]).await;
    assert!(dry.err.contains("2 running tasks") && dry.err.contains("enrolment of its token is open"), "{dry:?}");
    assert!(fake.asked().iter().all(|asked| asked.line != line("stop", false)));
    let ran = home.run(&["delegate", "stop", &id, "--yes", "--reason", "moves out", "-o", "name"]).await;
    assert_eq!((ran.code, ran.out.trim()), (0, id.as_str()), "{ran:?}");
    assert!(ran.err.contains("legation token revoke"), "{ran:?}");
    let deed = fake.asked().into_iter().find(|asked| asked.line == line("stop", false)).expect("a stop");
    assert_eq!(deed.body, r#"{"reason":"moves out"}"#);
    assert_eq!(home.run(&["delegate", "allow", &id]).await.code, 0);
    assert!(fake.asked().iter().any(|asked| asked.line == line("allow", false)));
}

#[tokio::test]
async fn only_one_that_waits_is_approved_or_refused() {
    let id = delegate().id.to_string();
    let fake = ready(DelegateStatus::Allowed).await;
    for verb in ["approve", "refuse"] {
        let ran = Home::of(&fake).run(&["delegate", verb, &id]).await;
        assert_eq!(ran.code, i32::from(exit_codes::REFUSED), "{ran:?}");
        assert!(ran.err.contains("does not wait for approval"), "{ran:?}");
    }
    let fake = ready(DelegateStatus::Pending).await;
    assert_eq!(Home::of(&fake).run(&["delegate", "approve", &id, "--reason", "ours"]).await.code, 0);
    assert_eq!(Home::of(&fake).run(&["delegate", "refuse", &id, "--yes"]).await.code, 0);
    let asked: Vec<_> = fake.asked().into_iter().map(|asked| asked.line).collect();
    assert!(asked.contains(&line("allow", false)) && asked.contains(&line("stop", false)), "{asked:?}");
}

#[tokio::test]
async fn those_that_wait_are_listed() {
    let fake = Fake::start().await;
    let waiting = Delegate { status: DelegateStatus::Pending, connected: false, tasks_running: 0, ..delegate() };
    fake.on("GET /api/v1/delegates?status=pending&connected=false&limit=500", &list(vec![waiting]));
    assert_snapshot!("delegate_ls_pending", Home::of(&fake).run(&["delegate", "ls", "--status", "pending"]).await.out);
}

#[tokio::test]
async fn a_clone_is_accounted_for() {
    let side = |boot: u8, host: &str| CloneSide {
        boot: BootId([boot; 16]),
        name: delegate().name,
        host: host.parse().expect("a host"),
        address: "10.0.0.7".to_owned(),
        version: "0.1.0".to_owned(),
        tags: delegate().tags,
        description: Default::default(),
        seen_at: AT,
    };
    let clone = CloneAccount {
        counted: side(5, "host7"),
        returned: side(6, "host8"),
        differs: vec!["host".to_owned()],
        what: "two processes use one delegate key".to_owned(),
        advice: "look".to_owned(),
    };
    let shown = Delegate {
        status: DelegateStatus::Quarantined,
        connected: false,
        status_reason: Some("two processes use one delegate key".to_owned()),
        status_by: Some("system".to_owned()),
        status_at: Some(AT),
        clone: Some(clone),
        ..delegate()
    };
    let fake = Fake::start().await;
    fake.on(&format!("GET /api/v1/delegates/{}", shown.id), &shown);
    assert_snapshot!(
        "delegate_show_clone",
        Home::of(&fake).run(&["delegate", "show", &shown.id.to_string()]).await.out
    );
}
