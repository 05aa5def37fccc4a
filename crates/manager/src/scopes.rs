//! The places of the scope tree: accounts, organizations and projects. Each is born with its default token, in the same
//! transaction, and deleted only when nothing is in it.

use std::collections::{BTreeMap, BTreeSet};

use legation_api::{Code, Problem};
use legation_model::{
    Millis, Scope, Text,
    ids::TokenId,
    reveal::Reveal,
    scope::{DEFAULT_ACCOUNT, ScopeKind},
    token::{DEFAULT_TOKEN, DelegateToken},
};
use legation_store::{
    Page, Paged, StoreError, Tx, job, leases,
    scopes::{self, Contents, Place, Standing},
    token_values, tokens,
};
use serde_json::{Value, json};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Actor, Change},
    error::Refusal,
    idempotency::{self, Idempotency, Made},
};

/// What is to become of a place's texts and settings; what is absent stays as it is.
#[derive(Clone, Debug, Default)]
pub struct PlaceChange {
    /// Another description.
    pub description: Option<Text>,
    /// Another lease, or the Manager's default again.
    pub lease: Option<Option<Millis>>,
    /// Another policy for the values of tokens.
    pub reveal: Option<Reveal>,
}

impl Manager {
    /// Creates a place and its default token, unissued.
    ///
    /// # Errors
    /// `name_taken`, also for a name that a deleted place had; `not_found` for a key confined to another scope, and when
    /// there is no place above it; `idempotency_mismatch`, `store_unavailable`.
    pub async fn create_scope(
        &self,
        caller: &Caller,
        scope: Scope,
        description: Text,
        lease: Option<Millis>,
        once: Option<Idempotency>,
    ) -> Result<Place, Refusal> {
        caller.require_sight(&scope, scope.kind().as_str())?;
        let actor = caller.actor();
        let place = self.new_place(scope, description, lease, &actor);
        match self.store_place(actor, place, once).await?? {
            Made::Fresh(place) => {
                self.grant_lease(&place);
                Ok(place)
            }
            Made::Replayed(scope) => self.stored_place(scope.parse().map_err(|_| Refusal::not_found("scope"))?).await,
        }
    }

    /// Makes the account `default`, unless it is there or was deleted.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn ensure_default_account(&self) -> Result<(), StoreError> {
        let scope: Scope = DEFAULT_ACCOUNT.parse().expect("the default account's name is a scope");
        let wanted = scope.clone();
        let find = job(move |conn| Box::pin(async move { scopes::standing(conn, &wanted).await }));
        if self.store.read(find).await? == Standing::Free {
            let actor = Actor::system();
            let place = self.new_place(scope, Text::default(), None, &actor);
            // The only refusals would be of a name that is in use and of an idempotency key, and there are none.
            let _made = self.store_place(actor, place, None).await?;
        }
        Ok(())
    }

    fn new_place(&self, scope: Scope, description: Text, lease: Option<Millis>, actor: &Actor) -> Place {
        let (created_at, created_by) = (self.clock.wall(), actor.name.clone());
        Place { scope, description, lease, reveal: Reveal::Never, version: 1, created_at, created_by }
    }

    /// The token that a place is born with.
    pub(crate) fn default_token(&self, scope: Scope) -> DelegateToken {
        let name = DEFAULT_TOKEN.parse().expect("the default token's name is a name");
        let (id, now) = (TokenId::random(&*self.entropy), self.clock.wall());
        DelegateToken::unissued(id, scope, name, now, Actor::system().name)
    }

    async fn store_place(
        &self,
        actor: Actor,
        place: Place,
        once: Option<Idempotency>,
    ) -> Result<Result<Made<Place>, Refusal>, StoreError> {
        let lease = place.lease.map(|lease| self.config.timing.with_lease(Some(lease)).lease_counted());
        let token = self.default_token(place.scope.clone());
        let work = job(move |tx| {
            Box::pin(async move {
                if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
                    return Ok(before.map(Made::Replayed));
                }
                if let Err(refusal) = can_be_made(tx, &place.scope).await? {
                    return Ok(Err(refusal));
                }
                insert(tx, &actor, &place, &token).await?;
                if let Some(lease) = lease {
                    leases::raise(tx, lease).await?;
                }
                idempotency::keep(tx, &actor, once.as_ref(), place.scope.as_str(), place.created_at).await?;
                Ok(Ok(Made::Fresh(place)))
            })
        });
        self.store.write(work).await
    }

    /// One place.
    ///
    /// # Errors
    /// `not_found` for a place that the caller may not see.
    pub async fn scope(&self, caller: &Caller, scope: Scope) -> Result<Place, Refusal> {
        caller.require_sight(&scope, "scope")?;
        self.stored_place(scope).await
    }

    async fn stored_place(&self, scope: Scope) -> Result<Place, Refusal> {
        let find = job(move |conn| Box::pin(async move { scopes::get(conn, &scope).await }));
        self.store.read(find).await?.ok_or_else(|| Refusal::not_found("scope"))
    }

    /// Places that the caller may see, in the order of the tree.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_scopes(
        &self,
        caller: &Caller,
        scope: Option<Scope>,
        kind: Option<ScopeKind>,
        page: Page,
    ) -> Result<Paged<Place>, Refusal> {
        let within = caller.confine(scope)?;
        let list = job(move |conn: &mut Tx| Box::pin(async move { scopes::list(conn, &within, kind, &page).await }));
        Ok(self.store.read(list).await?)
    }

    /// Changes a place, if it still is what the caller has seen: `seen` says whether this version is.
    ///
    /// A changed lease is granted from the next connection of each delegate on.
    ///
    /// # Errors
    /// `stale` for a version that is not the newest any more; `not_found`, `invalid_request`, `store_unavailable`.
    pub async fn update_scope(
        &self,
        caller: &Caller,
        scope: Scope,
        change: PlaceChange,
        seen: impl Fn(u64) -> bool + Send + Sync + 'static,
        dry_run: bool,
    ) -> Result<Place, Refusal> {
        caller.require_sight(&scope, "scope")?;
        if dry_run {
            let look = job(move |conn| Box::pin(async move { changed(conn, &scope, change, &seen).await }));
            return self.store.read(look).await?.map(|(_, after)| after);
        }
        let (actor, now) = (caller.actor(), self.clock.wall());
        let usual = self.config.timing;
        let work = job(move |tx| {
            Box::pin(async move {
                let (before, after) = match changed(tx, &scope, change, &seen).await? {
                    Ok(places) => places,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                scopes::update(tx, before.version, &after).await?;
                let erased = match (before.reveal, after.reveal) {
                    (Reveal::Audited, Reveal::Never) => token_values::forget_below(tx, &scope).await?,
                    _ => 0,
                };
                // Before it is granted for the first time: a successor counts with it.
                leases::raise(tx, usual.with_lease(after.lease).lease_counted()).await?;
                let mut updated = recorded(Verb::Update, &scope).between(shown(&before), shown(&after));
                if erased > 0 {
                    updated = updated.detail(format!("{erased} kept values of tokens are erased"));
                }
                audit::append(tx, &actor, now, updated).await?;
                Ok(Ok(after))
            })
        });
        let place = self.store.write(work).await??;
        self.grant_lease(&place);
        Ok(place)
    }

    /// Grants what was stored of an account's lease to whoever connects from now on.
    fn grant_lease(&self, place: &Place) {
        if place.scope.kind() == ScopeKind::Account {
            self.timings.set(&place.scope, place.lease);
        }
    }

    /// Deletes a place in which nothing is, with its default token if that was never issued. Its name is never used again.
    ///
    /// # Errors
    /// `scope_not_empty`, naming what is in it and what to run; `not_found`, `store_unavailable`.
    pub async fn delete_scope(&self, caller: &Caller, scope: Scope, dry_run: bool) -> Result<Place, Refusal> {
        caller.require_sight(&scope, "scope")?;
        let (actor, now) = (caller.actor(), self.clock.wall());
        if dry_run {
            let look = job(move |conn| Box::pin(async move { deletable(conn, &scope).await }));
            return self.store.read(look).await?;
        }
        let work = job(move |tx| {
            Box::pin(async move {
                let place = match deletable(tx, &scope).await? {
                    Ok(place) => place,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                tokens::bury_unissued(tx, &scope, now).await?;
                scopes::delete(tx, &scope, now).await?;
                audit::append(tx, &actor, now, recorded(Verb::Delete, &place.scope).before(shown(&place))).await?;
                Ok(Ok(place))
            })
        });
        self.store.write(work).await?
    }

    /// Gives a row to each place that was in use before organizations and projects had any, and a default token to each
    /// place that lacks one. Once in the life of a database.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn fill_places(&self) -> Result<(), StoreError> {
        if self.store.read(|conn| Box::pin(scopes::filled(conn))).await? {
            return Ok(());
        }
        let this = self.handle();
        let work = job(move |tx| Box::pin(async move { this.fill(tx).await }));
        let filled = self.store.write(work).await?;
        if filled > 0 {
            tracing::info!(places = filled, "places that were in use have a row of their own from now on");
        }
        Ok(())
    }

    async fn fill(&self, tx: &mut Tx) -> Result<usize, StoreError> {
        let (actor, missing) = (Actor::system(), scopes::without_row(tx).await?);
        for scope in &missing {
            let place = self.new_place(scope.clone(), Text::default(), None, &actor);
            scopes::insert(tx, &place).await?;
            let detail = "it was in use before it had a record of its own".to_owned();
            audit::append(tx, &actor, place.created_at, recorded(Verb::Create, scope).detail(detail)).await?;
        }
        for scope in scopes::without_default_token(tx).await? {
            tokens::insert(tx, &self.default_token(scope)).await?;
        }
        scopes::set_filled(tx).await?;
        Ok(missing.len())
    }
}

async fn insert(tx: &mut Tx, actor: &Actor, place: &Place, token: &DelegateToken) -> Result<(), StoreError> {
    scopes::insert(tx, place).await?;
    tokens::insert(tx, token).await?;
    audit::append(tx, actor, place.created_at, recorded(Verb::Create, &place.scope).after(shown(place))).await
}

/// Whether a place may be made: what lies above it is there, and its name was never used.
async fn can_be_made(tx: &mut Tx, scope: &Scope) -> Result<Result<(), Refusal>, StoreError> {
    if let Some(parent) = scope.parent()
        && scopes::get(tx, &parent).await?.is_none()
    {
        let detail = format!("there is no {} {parent} in which {scope} could lie", parent.kind());
        let fix = format!("create it first: `legation {} create {parent}`", parent.kind());
        return Ok(Err(Problem::new(Code::NotFound, detail).with_fix(fix).into()));
    }
    Ok(match scopes::standing(tx, scope).await? {
        Standing::Free => Ok(()),
        Standing::Taken => Err(Refusal::new(Code::NameTaken, format!("there is a scope {scope} already"))),
        Standing::Deleted => {
            let detail = format!("there was a scope {scope}, and the name of a deleted scope is not used again");
            let fix = "choose another name: what is recorded about the deleted one must not become the new one's";
            Err(Problem::new(Code::NameTaken, detail).with_fix(fix).into())
        }
    })
}

/// A place before and after a change, if it still is what was seen.
async fn changed(
    tx: &mut Tx,
    scope: &Scope,
    change: PlaceChange,
    seen: &(impl Fn(u64) -> bool + Sync),
) -> Result<Result<(Place, Place), Refusal>, StoreError> {
    let Some(before) = scopes::get(tx, scope).await? else { return Ok(Err(Refusal::not_found("scope"))) };
    if !seen(before.version) {
        return Ok(Err(stale(&before)));
    }
    let description = change.description.unwrap_or_else(|| before.description.clone());
    let lease = change.lease.unwrap_or(before.lease);
    let reveal = change.reveal.unwrap_or(before.reveal);
    let after = Place { description, lease, reveal, version: before.version + 1, ..before.clone() };
    Ok(Ok((before, after)))
}

async fn deletable(tx: &mut Tx, scope: &Scope) -> Result<Result<Place, Refusal>, StoreError> {
    let Some(place) = scopes::get(tx, scope).await? else { return Ok(Err(Refusal::not_found("scope"))) };
    let contents = scopes::contents(tx, scope).await?;
    Ok(match what_is_in(&contents) {
        None => Ok(place),
        Some(what) => {
            let detail = format!("the scope {scope} is not empty: it holds {what}");
            Err(Problem::new(Code::ScopeNotEmpty, detail).with_fix(how_to_empty(scope, &contents)).into())
        }
    })
}

/// What is in a place, in words; nothing when it is empty.
fn what_is_in(contents: &Contents) -> Option<String> {
    let parts = [
        named("scopes below it", &contents.places),
        named("tokens", &contents.tokens),
        named("API keys", &contents.keys),
        named("grants", &contents.grants),
        named("users and service accounts", &contents.principals),
        (contents.tasks > 0).then(|| format!("{} tasks that have not ended", contents.tasks)),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn named<T: ToString>(kind: &str, (names, count): &(Vec<T>, u64)) -> Option<String> {
    let first: Vec<String> = names.iter().map(T::to_string).collect();
    let more = if *count > names.len() as u64 { ", …" } else { "" };
    (*count > 0).then(|| format!("{count} {kind} ({}{more})", first.join(", ")))
}

/// The command that removes the first thing which is in a place.
fn how_to_empty(scope: &Scope, contents: &Contents) -> String {
    if let Some(below) = contents.places.0.first() {
        return format!("delete what lies below it first: `legation scope rm {below}`");
    }
    if let Some(token) = contents.tokens.0.first() {
        return format!(
            "revoke and delete its tokens first: `legation token revoke {token} --scope {scope}`, then `legation token \
             rm {token} --scope {scope}`"
        );
    }
    if contents.tasks > 0 {
        return format!("wait for its tasks, or cancel them: `legation task ls --scope {scope}`");
    }
    if let Some(key) = contents.keys.0.first() {
        return format!("revoke the API keys that are narrowed to it first: `legation api-key revoke {key}`");
    }
    if let Some(grant) = contents.grants.0.first() {
        return format!("take its grants away first: `legation grant rm {grant}`");
    }
    format!(
        "delete who belongs to it first: `legation service-account ls --scope {scope}`, `legation user ls --scope {scope}`"
    )
}

fn stale(now: &Place) -> Refusal {
    let detail = format!("the scope {} was changed meanwhile: its version is {}", now.scope, now.version);
    Refusal::new(Code::Stale, detail)
}

/// A change of a place, for the audit chain.
fn recorded(verb: Verb, scope: &Scope) -> Change {
    let action = match (scope.kind(), verb) {
        (ScopeKind::Account, Verb::Create) => "account.create",
        (ScopeKind::Account, Verb::Update) => "account.update",
        (ScopeKind::Account, Verb::Delete) => "account.delete",
        (ScopeKind::Organization, Verb::Create) => "organization.create",
        (ScopeKind::Organization, Verb::Update) => "organization.update",
        (ScopeKind::Organization, Verb::Delete) => "organization.delete",
        (ScopeKind::Project, Verb::Create) => "project.create",
        (ScopeKind::Project, Verb::Update) => "project.update",
        (ScopeKind::Project, Verb::Delete) => "project.delete",
    };
    Change::new(action, scope, scope.clone())
}

/// What is done to a place.
#[derive(Clone, Copy)]
enum Verb {
    Create,
    Update,
    Delete,
}

/// What the audit record says of a place.
fn shown(place: &Place) -> Value {
    let reveal = (place.scope.kind() == ScopeKind::Account).then_some(place.reveal);
    json!({"description": place.description, "lease_ms": place.lease, "reveal": reveal})
}

/// The places that the requests of one transaction name: asked for once, in one statement.
pub(crate) struct KnownScopes(BTreeMap<Scope, Reveal>);

impl KnownScopes {
    /// Asks for all of them.
    pub(crate) async fn read(tx: &mut Tx, scopes: BTreeSet<Scope>) -> Result<Self, StoreError> {
        scopes::known(tx, &scopes).await.map(Self)
    }

    /// Whether the values of tokens of a scope are kept; its account must have been asked for.
    pub(crate) fn keeps_values(&self, scope: &Scope) -> bool {
        self.0.get(&scope.top()) == Some(&Reveal::Audited)
    }

    /// Refuses what names a place that does not exist.
    ///
    /// # Errors
    /// `not_found`.
    pub(crate) fn require(&self, scope: &Scope) -> Result<(), Refusal> {
        if self.0.contains_key(scope) { Ok(()) } else { Err(Refusal::not_found("scope")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_is_in_the_way_and_the_command_that_removes_it() {
        let scope: Scope = "acme".parse().expect("a scope");
        let mut contents = Contents::default();
        assert_eq!(what_is_in(&contents), None);
        contents.tasks = 3;
        assert!(how_to_empty(&scope, &contents).contains("legation task ls --scope acme"));
        contents.tokens = (vec!["build".parse().expect("a name")], 1);
        assert!(how_to_empty(&scope, &contents).contains("legation token revoke build --scope acme"));
        contents.places = (vec!["acme/eng".parse().expect("a scope")], 7);
        let told = what_is_in(&contents).expect("something");
        assert_eq!(told, "7 scopes below it (acme/eng, …), 1 tokens (build), 3 tasks that have not ended");
        assert!(how_to_empty(&scope, &contents).contains("legation scope rm acme/eng"));
    }
}
