//! The audit chain as it is read: lists, exports that prove themselves, what retention leaves, the live tail.

use legation_api::{
    Code,
    accounts::CreateAccount,
    audit::AuditQuery,
    audit_verify::{Anchor, FaultKind, Trusted, Verified, verify},
    client::{AuditTail, ClientError, TailItem},
    revoke::RevokeToken,
    tokens::CreateToken,
};
use legation_manager::{
    audit::{Actor, Change, append_all},
    checkpoints::{CHECKPOINT_EVERY, CHECKPOINT_RECORDS},
    config::Settings,
};
use legation_model::{Clock as _, Millis, access::Role, audit::Outcome, secret::SecretText};
use legation_store::{
    audit::{self, Place},
    job,
};
use legation_testkit::{Engine, Inside, eventually};
use reqwest::Method;

use super::raw::{Raw, answer, key};

super::on_both!(
    records_are_found_by_what_they_say,
    an_export_proves_itself_and_shows_what_was_done_to_it,
    an_export_is_continued_where_it_ended,
    checkpoints_come_by_number_by_time_and_at_the_end,
    retention_deletes_up_to_a_signature_and_what_is_left_verifies,
    a_live_reader_misses_nothing_and_ends_with_its_access,
    a_scope_sees_its_own_records_only,
);

const DAY: Millis = 24 * 60 * 60 * 1000;

async fn export(inside: &Inside, after: u64) -> String {
    let mut export = inside.client.export_audit(after).await.expect("begun");
    let mut text = Vec::new();
    while let Some(bytes) = export.next().await.expect("whole") {
        text.extend(bytes);
    }
    String::from_utf8(text).expect("text")
}

async fn trusted(inside: &Inside) -> Trusted {
    let keys = inside.client.signing_keys().await.expect("keys").items;
    Trusted { keys: keys.iter().map(|key| key.public_key).collect(), ..Trusted::default() }
}

async fn verified(inside: &Inside) -> Verified {
    let text = export(inside, 0).await;
    verify(text.lines(), &trusted(inside).await).unwrap_or_else(|fault| panic!("{fault} in {text}"))
}

/// Writes this many records in one transaction.
async fn many(inside: &Inside, count: u64) {
    let changes = (0..count).map(|number| (Actor::system(), Change::new("test.many", number, None))).collect();
    let now = inside.clock.wall();
    let write = job(move |tx| Box::pin(async move { append_all(tx, now, changes).await }));
    inside.manager.store.write(write).await.expect("written");
}

async fn last_checkpoint(inside: &Inside) -> u64 {
    let read = inside.manager.store.read(|conn| Box::pin(audit::last_place(conn, Place::Checkpoint))).await;
    read.expect("read").map_or(0, |checkpoint| checkpoint.number)
}

async fn records_are_found_by_what_they_say(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("one").await;
    inside.token("two").await;
    inside.client.revoke_token(token.id, &RevokeToken::default()).await.expect("revoked");
    let found = async |query: AuditQuery| {
        let list = inside.client.audit(&query).await.expect("a list");
        list.items.iter().map(|record| format!("{} {}", record.action, record.object)).collect::<Vec<_>>()
    };
    let all = AuditQuery::default();
    let of_token = [format!("token.revoke {}", token.id), format!("token.create {}", token.id)];
    assert_eq!(found(AuditQuery { object: Some(token.id.to_string()), ..all.clone() }).await, of_token);
    let revoked = AuditQuery { action: Some("token.revoke".to_owned()), ..all.clone() };
    assert_eq!(found(revoked).await, of_token[..1]);
    let of_tokens =
        AuditQuery { action: Some("token".to_owned()), actor: Some("break-glass".to_owned()), ..all.clone() };
    assert_eq!(found(of_tokens.clone()).await.len(), 3);
    let page = inside.client.audit(&AuditQuery { limit: Some(2), ..of_tokens.clone() }).await.expect("a page");
    let rest = AuditQuery { limit: Some(2), cursor: page.next, ..of_tokens };
    assert_eq!(found(rest).await, [format!("token.create {}", token.id)]);
    assert_eq!(found(AuditQuery { outcome: Some(Outcome::Refused), ..all.clone() }).await, Vec::<String>::new());
    let now = inside.clock.wall();
    assert_eq!(found(AuditQuery { from_at: Some(now + DAY), ..all.clone() }).await, Vec::<String>::new());
    assert!(!found(AuditQuery { from_at: Some(now - DAY), until_at: Some(now + DAY), ..all }).await.is_empty());
    let record = inside.client.audit_record(1).await.expect("a record");
    assert_eq!((record.number, record.action.as_str()), (1, "admin.reset"));

    let raw = Raw::of(&inside);
    for query in ["outcome=perhaps", "from_at=now", "colour=red", "limit=2&cursor=%00"] {
        let refused = raw.get(&format!("/api/v1/audit?{query}")).await;
        assert_eq!(refused.code(), Code::InvalidRequest, "{query}");
    }
    for path in ["/api/v1/audit/0", "/api/v1/audit/-1", "/api/v1/audit/x", "/api/v1/audit/99999999999999999999"] {
        assert_eq!(raw.get(path).await.code(), Code::NotFound, "{path}");
    }
}

async fn an_export_proves_itself_and_shows_what_was_done_to_it(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("one").await;
    // More than is read at once, and with checkpoints in between.
    many(&inside, 700).await;
    inside.manager.checkpoint().await.expect("signed");
    inside.client.revoke_token(token.id, &RevokeToken::default()).await.expect("revoked");
    let text = export(&inside, 0).await;
    let trusted = trusted(&inside).await;
    let verified = verify(text.lines(), &trusted).unwrap_or_else(|fault| panic!("{fault}"));
    let last = super::audit::records(&inside).await.pop().expect("a record");
    assert_eq!((verified.first, verified.last, verified.checkpoints), (1, last.number, 2));
    assert!(text.contains(&token.id.to_string()));

    // What the database was made to say is what the export shows.
    let change = format!("UPDATE audit SET detail = 'nothing' WHERE number = {}", last.number - 3);
    super::behind(&inside, &change).await;
    let fault = verify(export(&inside, 0).await.lines(), &trusted).expect_err("altered");
    assert_eq!((fault.kind, fault.number), (FaultKind::Altered, last.number - 3));
    super::behind(&inside, &format!("DELETE FROM audit WHERE number = {}", last.number)).await;
    inside.token("two").await;
    let kept = Trusted { expect: vec![Anchor { number: verified.last, hash: verified.hash }], ..trusted };
    assert!(verify(export(&inside, 0).await.lines(), &kept).is_err());

    let raw = Raw::of(&inside);
    let beyond = raw.get("/api/v1/audit/export?after=1000000").await;
    assert_eq!(beyond.code(), Code::InvalidRequest);
    let confined = key(&inside, Role::Admin, Some("default"), None).await.reveal();
    let refused = answer(raw.with(confined.expose(), Method::GET, "/api/v1/audit/export")).await;
    assert_eq!(refused.code(), Code::Forbidden);
}

async fn an_export_is_continued_where_it_ended(engine: Engine) {
    let inside = Inside::start(engine).await;
    many(&inside, 10).await;
    let mut text = export(&inside, 0).await;
    let first = verify(text.lines(), &trusted(&inside).await).expect("genuine");
    assert_eq!(export(&inside, first.last).await, "", "nothing new");
    many(&inside, 10).await;
    let rest = export(&inside, first.last).await;
    text += &rest;
    let whole = verify(text.lines(), &trusted(&inside).await).expect("genuine");
    assert_eq!((whole.first, whole.last, whole.records), (1, first.last + 10, first.last + 10));
    let after = Some(Anchor { number: first.last, hash: first.hash });
    let part = verify(rest.lines(), &Trusted { after, ..trusted(&inside).await }).expect("genuine");
    assert_eq!(part.first, first.last + 1);
}

async fn checkpoints_come_by_number_by_time_and_at_the_end(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let news = async |inside: &Inside, than: u64| {
        eventually("a checkpoint comes", async || {
            let last = last_checkpoint(inside).await;
            (last > than).then_some(last)
        })
        .await
    };
    let first = news(&inside, 0).await;
    many(&inside, CHECKPOINT_RECORDS).await;
    let by_number = news(&inside, first).await;
    assert_eq!(by_number, first + CHECKPOINT_RECORDS);
    many(&inside, 1).await;
    inside.clock.advance(CHECKPOINT_EVERY);
    let by_time = news(&inside, by_number).await;
    assert_eq!(by_time, by_number + 1);
    many(&inside, 1).await;
    inside.restart().await;
    assert_eq!(last_checkpoint(&inside).await, by_time + 1, "the end is signed");
    assert_eq!(verified(&inside).await.last, by_time + 1);
}

async fn retention_deletes_up_to_a_signature_and_what_is_left_verifies(engine: Engine) {
    let settings = Settings { audit_keep: Some("2d".to_owned()), ..Settings::default() };
    let inside = Inside::with(engine, settings).await;
    many(&inside, 20).await;
    let old = inside.manager.checkpoint().await.expect("signed").number;
    many(&inside, 5).await;
    inside.clock.advance(DAY);
    inside.manager.prune_audit().await.expect("nothing to do");
    assert_eq!(verified(&inside).await.base, None, "nothing is old enough");
    let newer = last_checkpoint(&inside).await;
    assert!(newer > old);

    inside.clock.advance(DAY + 1);
    inside.manager.prune_audit().await.expect("pruned");
    let left = verified(&inside).await;
    assert_eq!((left.base, left.first), (Some(old), old + 1), "up to the checkpoint that is old enough, not further");
    let prunes = AuditQuery { action: Some("audit.prune".to_owned()), ..AuditQuery::default() };
    let pruned = inside.client.audit(&prunes).await.expect("a list").items.pop().expect("a record of it");
    assert_eq!((pruned.actor.as_str(), pruned.object), ("system", old.to_string()));
    assert!(matches!(
        inside.client.audit_record(old).await,
        Err(ClientError::Problem(problem)) if problem.code == Code::NotFound
    ));

    // All that there was: the chain goes on from the base, and never begins anew.
    inside.clock.advance(3 * DAY);
    inside.manager.checkpoint().await.expect("signed");
    inside.clock.advance(3 * DAY);
    inside.manager.prune_audit().await.expect("pruned");
    inside.token("new").await;
    let left = verified(&inside).await;
    assert!(left.base > Some(newer), "{left:?}");
    assert!(left.records <= 4, "{left:?}");

    // A forged base is signed by nobody.
    let text = export(&inside, 0).await;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = lines.iter().position(|line| line.contains("\"line\":\"record\"")).expect("a record");
    lines.remove(at);
    assert!(verify(&lines, &trusted(&inside).await).is_err(), "a base does not excuse a missing record");
}

pub(super) async fn next_record(tail: &mut AuditTail) -> legation_api::audit::AuditRecord {
    loop {
        match tail.next().await.expect("an item") {
            TailItem::Record(record) => return *record,
            TailItem::Behind(_) => {}
        }
    }
}

async fn a_live_reader_misses_nothing_and_ends_with_its_access(engine: Engine) {
    let inside = Inside::start(engine).await;
    // From the beginning: what is there, then what comes, in order and once.
    let mut tail = inside.client.tail_audit(Some(0));
    assert_eq!(next_record(&mut tail).await.number, 1);
    let last = super::audit::records(&inside).await.len() as u64;
    many(&inside, 700).await;
    for number in 2..=last + 700 {
        assert_eq!(next_record(&mut tail).await.number, number);
    }
    // One that is far behind is told, and misses nothing.
    let mut late = inside.client.tail_audit(Some(1));
    let TailItem::Behind(behind) = late.next().await.expect("an item") else { panic!("it was not told") };
    assert_eq!(behind.records, last + 699);
    assert_eq!(next_record(&mut late).await.number, 2);

    // A reader whose key is taken away is cut off, and refused when it comes again.
    let reader = key(&inside, Role::Admin, None, None).await;
    let secret = SecretText::new(reader.reveal().expose().to_owned());
    let client = legation_api::client::Client::new(&inside.url, Some(&secret), None).expect("a client");
    let mut of_reader = client.tail_audit(Some(last + 699));
    assert_eq!(next_record(&mut of_reader).await.number, last + 700);
    inside.client.revoke_api_key(reader.id).await.expect("revoked");
    inside.token("secret-from-the-reader").await;
    match of_reader.next().await {
        Err(ClientError::Problem(problem)) => assert_eq!(problem.code, Code::Unauthenticated),
        other => panic!("the reader still reads: {other:?}"),
    }
    for action in ["api_key.revoke", "token.create"] {
        assert_eq!(next_record(&mut tail).await.action, action, "the other one goes on");
    }

    let raw = Raw::of(&inside);
    for path in ["/api/v1/audit/tail?after=x", "/api/v1/audit/tail?since=1"] {
        assert_eq!(raw.get(path).await.code(), Code::InvalidRequest, "{path}");
    }
    let strange = raw.with(inside.key.expose().trim(), Method::GET, "/api/v1/audit/tail").header("last-event-id", "x");
    assert_eq!(answer(strange).await.code(), Code::InvalidRequest);
}

async fn a_scope_sees_its_own_records_only(engine: Engine) {
    let inside = Inside::start(engine).await;
    for account in ["acme", "other"] {
        let account =
            CreateAccount { id: account.parse().expect("a scope"), description: Default::default(), lease_ms: None };
        inside.client.create_account(&account).await.expect("created");
        let new = CreateToken::new(account.id, "t".parse().expect("a name"));
        inside.client.create_token(&new).await.expect("created");
    }
    let raw = Raw::of(&inside);
    let acme = key(&inside, Role::Admin, Some("acme"), None).await.reveal();
    let get = async |path: &str| answer(raw.with(acme.expose(), Method::GET, path)).await;
    let list = get("/api/v1/audit").await.json();
    let items = list["items"].as_array().expect("a list");
    assert_eq!(items.len(), 2, "{items:?}");
    assert!(items.iter().all(|item| item["scope"] == "acme"), "{items:?}");
    let tail = get("/api/v1/audit/tail?after=0&follow=false").await.text();
    assert_eq!(tail.matches("event: record").count(), 2, "{tail}");
    assert!(!tail.contains("other") && !tail.contains("admin.reset"), "{tail}");
    for record in super::audit::records(&inside).await {
        let answer = get(&format!("/api/v1/audit/{}", record.number)).await;
        let own = record.scope.as_ref().is_some_and(|scope| scope.as_str() == "acme");
        assert_eq!(answer.status, if own { 200 } else { 404 }, "{record:?}");
    }
}
