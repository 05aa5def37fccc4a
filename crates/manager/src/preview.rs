//! What revoking a token now would hit: its delegates, their tasks, and the work that nobody else could take.

use std::collections::BTreeMap;

use legation_api::revoke::{Covering, LostCapacity, RevokePreview, RevokePreviewLine};
use legation_model::{
    Name, Scope,
    ids::{DelegateId, TokenId},
    task::Task,
};
use legation_store::{delegates, job, tasks};

use crate::{Manager, access::Caller, error::Refusal, session::Session};

/// Task ids on one line, and kinds of conditions in one preview: what a person can still look through.
const SHOWN_MAX: usize = 100;

impl Manager {
    /// What revoking a token now would hit.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn preview_revoke(&self, caller: &Caller, id: TokenId) -> Result<RevokePreview, Refusal> {
        let token = self.token(caller, id).await?;
        let find = job(move |conn| {
            Box::pin(async move { Ok((tasks::open_of_token(conn, id).await?, delegates::holders(conn, id).await?)) })
        });
        let (open, holders) = self.store.read(find).await?;
        let mut running = tasks_by_delegate(&open);
        let lines = self.lease_holders(&holders, id, &self.connected(id)).into_iter().filter_map(|line| {
            let holder = holders.iter().find(|holder| holder.id == line.delegate)?;
            let mut tasks = running.remove(&line.delegate).unwrap_or_default();
            let tasks_running = tasks.len() as u32;
            tasks.truncate(SHOWN_MAX);
            let (name, host, connected) = (holder.name.clone(), holder.host.clone(), line.connected);
            Some(RevokePreviewLine { delegate: holder.id, name, host, connected, tasks_running, tasks })
        });
        let delegates: Vec<RevokePreviewLine> = lines.collect();
        let (queued, conditions) = self.without_capacity(id);
        Ok(RevokePreview {
            covered_by: self.covered_by(&token.scope, id, &delegates),
            delegates,
            attempts_lost: open.len() as u32,
            queued_without_capacity: queued,
            conditions_without_capacity: conditions,
            token: (&token).into(),
        })
    }

    /// Waiting tasks that some delegate of the token could take and no other; how many, and what they ask for.
    fn without_capacity(&self, token: TokenId) -> (u32, Vec<LostCapacity>) {
        let sessions = self.sessions.current();
        let mut kinds: BTreeMap<(Scope, Vec<String>, &'static str), (bool, u32)> = BTreeMap::new();
        for task in self.queue.snapshot() {
            let selectors = task.selectors.iter().map(ToString::to_string).collect();
            let lost = kinds.entry((task.scope.clone(), selectors, task.kind.as_str())).or_insert_with(|| {
                // What excludes one task of a kind excludes all of them.
                let could = |own: bool| {
                    let of = |session: &&std::sync::Arc<Session>| (session.token.id == token) == own;
                    sessions.iter().filter(of).any(|session| crate::queue::fits(session, &task))
                };
                (could(true) && !could(false), 0)
            });
            lost.1 += 1;
        }
        let mut lost: Vec<LostCapacity> = Vec::new();
        for ((scope, selectors, _), (_, tasks)) in kinds.into_iter().filter(|(_, (lost, _))| *lost) {
            lost.push(LostCapacity { scope, selectors, tasks });
        }
        let all = lost.iter().map(|one| one.tasks).sum();
        lost.sort_by_key(|one| std::cmp::Reverse(one.tasks));
        lost.truncate(SHOWN_MAX);
        (all, lost)
    }

    /// Other tokens of the scope with connected delegates of the same names.
    fn covered_by(&self, scope: &Scope, token: TokenId, delegates: &[RevokePreviewLine]) -> Vec<Covering> {
        let names: std::collections::BTreeSet<&Name> = delegates.iter().map(|line| &line.name).collect();
        let mut found: BTreeMap<(Name, TokenId), u32> = BTreeMap::new();
        for session in self.sessions.current() {
            let other = session.token.id != token && session.token.scope == *scope && !session.token.is_draining();
            if other && names.contains(&session.name) {
                *found.entry((session.name.clone(), session.token.id)).or_default() += 1;
            }
        }
        found.into_iter().map(|((name, token), delegates)| Covering { name, token, delegates }).collect()
    }
}

fn tasks_by_delegate(open: &[Task]) -> BTreeMap<DelegateId, Vec<legation_model::ids::TaskId>> {
    let mut of: BTreeMap<DelegateId, Vec<_>> = BTreeMap::new();
    for task in open {
        if let Some(attempt) = &task.attempt {
            of.entry(attempt.delegate).or_default().push(task.id);
        }
    }
    of
}
