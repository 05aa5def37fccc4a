//! The whole life of a token, told once, through the command line and the API in turns.

use std::{fs, process::Output};

use legation_api::{
    Code,
    audit::{AuditQuery, AuditRecord},
    receipts::Receipt,
    revoke::RevokeToken,
    token_update::UpdateToken,
    tokens::{CreateToken, Token, TokensQuery},
};
use legation_model::{
    delegate::DelegateStatus,
    ids::{ReceiptId, TokenId},
    secret::SecretText,
    token::TokenStatus,
};
use legation_testkit::{Engine, World, canary::Canary, delegate::Delegate, eventually, world::STOPPED_WITHIN};
use serde_json::Value;

on_both!(a_token_lives_and_ends);

/// Exit code of a delegate that was told to stop (EX_CONFIG of sysexits).
const STOPPED: i32 = 78;
const PLACE: &str = "default/field";

/// A world, the token it is about, and everything that any command has printed since that was made.
struct Life {
    world: World,
    id: TokenId,
    printed: Vec<u8>,
}

async fn a_token_lives_and_ends(engine: Engine) {
    let world = World::with(engine, &[("LEGATION_HEARTBEAT", "200ms")]).await;
    let (mut life, value) = Life::begin(world).await;
    let mut delegate = life.admits_one_delegate(&value).await;
    life.works(&delegate).await;
    life.changes_its_limits(&delegate).await;
    life.says_what_its_end_would_hit().await;
    life.drains(&delegate).await;
    let receipt = life.is_revoked(&mut delegate).await;
    life.proves_its_end(receipt).await;
    life.is_deleted(&mut delegate).await;
    life.is_remembered().await;
    life.has_kept_its_secret(&value);
}

impl Life {
    /// A place is made, with a default token that has no value; then the token that this is about. Its value is shown once.
    async fn begin(world: World) -> (Self, SecretText) {
        let mut life = Self { world, id: TokenId([0; 16]), printed: Vec::new() };
        life.run(&["organization", "create", PLACE]).await;
        let born = life.listed("default_token").await.expect("a place has a default token");
        assert_eq!((born.status, born.generation), (TokenStatus::Unissued, 0));

        let create = ["token", "create", "field", "--scope", PLACE, "--max-delegates", "1", "--enrolment", "approval"];
        let once = ["--expires", "2100-01-01T00:00:00Z", "--idempotency-key", "life", "-o", "name"];
        let shown = life.world.cli(&[&create[..], &once].concat()).await;
        assert!(shown.status.success(), "{shown:?}");
        let value = SecretText::new(String::from_utf8(shown.stdout).expect("text").trim().to_owned());
        let again = life.json(&[&create[..], &once[..4]].concat()).await;
        assert_eq!((&again["value"], &again["code"]), (&Value::Null, &"value_already_shown".into()));

        let token = life.listed("field").await.expect("it is listed");
        assert_eq!((token.status, token.generation, token.last_used_at), (TokenStatus::Active, 1, None));
        life.id = token.id;
        (life, value)
    }

    /// Nobody joins unasked; one delegate may, and a second one finds the place taken.
    async fn admits_one_delegate(&mut self, value: &SecretText) -> Delegate {
        let mut delegate = self.world.delegate_with("outpost", value, &[]);
        let pending = async || self.world.seen("outpost").await.filter(|seen| seen.status == DelegateStatus::Pending);
        let asking = eventually("a new delegate waits for approval", pending).await;
        assert!(!asking.connected);
        self.run(&["delegate", "approve", &asking.id.to_string()]).await;
        // By itself it would ask again within half a minute.
        delegate.process.kill().await;
        delegate.restart(&[]);
        self.world.connected(&delegate).await;

        let mut second = self.world.delegate_with("second", value, &[]);
        let pending = async || self.world.seen("second").await.filter(|seen| seen.status == DelegateStatus::Pending);
        let asking = eventually("another one waits", pending).await;
        self.run(&["delegate", "approve", "second", "--scope", PLACE]).await;
        second.process.kill().await;
        second.restart(&[]);
        let full = async || second.process.log().contains("max_delegates").then_some(());
        eventually("the token's only place is taken", full).await;
        assert!(!self.world.client.delegate(asking.id).await.expect("it is known").connected);
        second.process.kill().await;
        eventually("the token counts as used", async || self.token().await.last_used_at.map(drop)).await;
        delegate
    }

    async fn works(&mut self, delegate: &Delegate) {
        let out =
            self.run(&["task", "run", "--scope", PLACE, "--on", &delegate.name, "--", "echo", "it", "works"]).await;
        assert!(String::from_utf8_lossy(&out.stdout).contains("it works"), "{out:?}");
    }

    /// Whoever has not seen the last change changes nothing; a limit that excludes a delegate holds at once.
    async fn changes_its_limits(&mut self, delegate: &Delegate) {
        let version = self.token().await.version;
        self.run(&["token", "edit", "field", "--scope", PLACE, "--expires", "in 50m"]).await;
        let near = async || delegate.process.log().contains("the token expires within 1 h").then_some(());
        eventually("the delegate says that its token expires soon", near).await;
        let wide = UpdateToken { max_delegates: Some(None), ..UpdateToken::default() };
        let stale = self.world.client.update_token(self.id, version, &wide).await.expect_err("it has changed since");
        assert_eq!(stale.code(), Some(Code::Stale));

        self.run(&["token", "edit", "field", "--scope", PLACE, "--allow-name", "elsewhere-*"]).await;
        assert!(!self.world.seen("outpost").await.expect("it is known").connected, "at once");
        self.run(&["token", "edit", "field", "--scope", PLACE, "--allow-all-names"]).await;
        self.world.connected(delegate).await;
    }

    /// The preview names whom and what a revoke would stop, and a token that can be proven cannot be deleted.
    async fn says_what_its_end_would_hit(&mut self) {
        let run = ["task", "run", "--scope", PLACE, "--on", "outpost", "--detach", "-o", "name", "--", "sleep 600"];
        let task = String::from_utf8(self.run(&run).await.stdout).expect("text").trim().to_owned();
        eventually("the long task runs", async || {
            let task = self.world.task(task.parse().expect("an id")).await;
            task.started_at.map(drop)
        })
        .await;
        let preview = self.world.client.preview_revoke(self.id).await.expect("a preview");
        let hit: Vec<_> = preview.delegates.iter().map(|one| (one.name.as_str(), one.tasks_running)).collect();
        assert_eq!(hit, [("outpost", 1)]);
        assert_eq!(preview.delegates[0].tasks.iter().map(ToString::to_string).collect::<Vec<_>>(), [task]);
        let said = self.run(&["token", "revoke", "field", "--scope", PLACE, "--dry-run"]).await;
        let said = String::from_utf8_lossy(&said.stdout);
        assert!(said.contains("outpost"), "{said}");

        let early = self.fails(&["token", "rm", "field", "--scope", PLACE, "--yes"]).await;
        assert!(early.contains(&format!("legation token revoke {}", self.id)), "{early}");
    }

    /// What runs goes on, and nothing new comes.
    async fn drains(&mut self, delegate: &Delegate) {
        self.run(&["token", "revoke", "field", "--scope", PLACE, "--drain", "1h", "--reason", "moving out", "--yes"])
            .await;
        assert_eq!(self.token().await.status, TokenStatus::Draining);
        let run = ["task", "run", "--scope", PLACE, "--on", "outpost", "--queue-timeout", "1s", "--", "true"];
        let rejected = self.fails(&run).await;
        assert!(rejected.contains("draining"), "{rejected}");
        assert!(self.world.connected(delegate).await.connected);
    }

    /// It ends with a receipt, the same one whenever it is asked for; the delegate and its work are gone.
    async fn is_revoked(&mut self, delegate: &mut Delegate) -> ReceiptId {
        let told = self.json(&["token", "revoke", "field", "--scope", PLACE, "--reason", "leaked", "--yes"]).await;
        let receipt: Receipt = serde_json::from_value(told).expect("a receipt");
        assert_eq!((receipt.token, receipt.lines.len(), receipt.attempts_lost), (self.id, 1, 1));
        assert!(receipt.lines[0].cut_at.is_some() && receipt.lines[0].stopped_reported_at.is_some(), "{receipt:?}");
        assert_eq!(delegate.process.exit(STOPPED_WITHIN).await.code(), Some(STOPPED));
        let again = self.world.client.revoke_token(self.id, &RevokeToken::default()).await.expect("the same receipt");
        assert_eq!(again.id, receipt.id);
        delegate.restart(&[]);
        assert_eq!(delegate.process.exit(STOPPED_WITHIN).await.code(), Some(STOPPED), "it is refused the same way");
        receipt.id
    }

    /// The receipt and the audit record are checked with a public key and without the Manager.
    async fn proves_its_end(&mut self, receipt: ReceiptId) {
        let key = self.json(&["signing-key", "ls"]).await;
        let key = key["items"][0]["public_key"].as_str().expect("a key").to_owned();
        let shown = self.run(&["receipt", "show", &receipt.to_string(), "-o", "json"]).await.stdout;
        let file = self.world.directory().join("receipt.json");
        fs::write(&file, &shown).expect("a file");
        self.run(&["receipt", "verify", "receipt.json", "--key", &key]).await;
        let altered = String::from_utf8(shown).expect("text").replace("outpost", "outhouse");
        fs::write(&file, altered).expect("a file");
        self.fails(&["receipt", "verify", "receipt.json", "--key", &key]).await;

        self.run(&["audit", "export", "audit.jsonl"]).await;
        self.run(&["audit", "verify", "audit.jsonl", "--key", &key]).await;
    }

    /// It is in no list any more, its delegate is refused as before, and its name is free.
    async fn is_deleted(&mut self, delegate: &mut Delegate) {
        assert!(self.listed("field").await.is_none(), "a revoked token is hidden");
        self.run(&["token", "rm", "field", "--scope", PLACE, "--yes"]).await;
        let query = TokensQuery { include_revoked: true, ..TokensQuery::default() };
        let left = self.world.client.tokens(&query).await.expect("a list").items;
        assert!(left.iter().all(|token| token.id != self.id));
        delegate.restart(&[]);
        assert_eq!(delegate.process.exit(STOPPED_WITHIN).await.code(), Some(STOPPED));
        let again = CreateToken::new(PLACE.parse().expect("a scope"), "field".parse().expect("a name"));
        let again = self.world.client.create_token(&again).await.expect("its name is free");
        assert_ne!(again.token.id, self.id, "its id is not");
    }

    /// Each step is in the audit chain, in order, with who did it.
    async fn is_remembered(&mut self) {
        let query = AuditQuery { object: Some(self.id.to_string()), ..AuditQuery::default() };
        let mut records: Vec<AuditRecord> = self.world.client.audit(&query).await.expect("a list").items;
        records.reverse();
        // Whether the sweep warned while the expiry was near is another test's.
        records.retain(|record| record.action != "token.expires_soon");
        let actions: Vec<&str> = records.iter().map(|record| record.action.as_str()).collect();
        let expected = [
            "token.create",
            "token.update",
            "token.update",
            "token.update",
            "token.drain",
            "token.revoke",
            "token.delete",
        ];
        assert_eq!(actions, expected);
        assert!(records.iter().all(|record| record.actor.starts_with("break-glass/")), "{records:?}");
    }

    /// The value was printed once, and is nowhere else: not in what was printed since, not in a log, not in the database.
    fn has_kept_its_secret(&self, value: &SecretText) {
        let canary = Canary::token(value.expose());
        assert_eq!(canary.in_bytes(&self.printed), None);
        assert_eq!(canary.in_tree(self.world.directory(), &[]), Vec::<String>::new());
    }

    async fn token(&self) -> Token {
        self.world.client.token(self.id).await.expect("the token")
    }

    async fn listed(&self, name: &str) -> Option<Token> {
        let scope = Some(PLACE.parse().expect("a scope"));
        let query = TokensQuery { scope, name: Some(name.parse().expect("a name")), ..TokensQuery::default() };
        self.world.client.tokens(&query).await.expect("a list").items.pop()
    }

    /// Runs a command that must succeed.
    async fn run(&mut self, arguments: &[&str]) -> Output {
        let output = self.keep(arguments).await;
        assert!(output.status.success(), "legation {arguments:?}: {output:?}");
        output
    }

    /// The answer of a command that must succeed.
    async fn json(&mut self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_slice(&output.stdout).expect("json")
    }

    /// What a command says that must fail.
    async fn fails(&mut self, arguments: &[&str]) -> String {
        let output = self.keep(arguments).await;
        assert!(!output.status.success(), "legation {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    async fn keep(&mut self, arguments: &[&str]) -> Output {
        let output = self.world.cli(arguments).await;
        self.printed.extend(output.stdout.iter().chain(&output.stderr));
        output
    }
}
