//! A token's restrictions, at admission and when they are changed under delegates that are connected.

use std::{collections::HashMap, net::IpAddr};

use legation_model::{Name, ids::DelegateId, token::TokenLimits};
use legation_store::{StoreError, delegates, job};
use legation_wire::{close::GoodbyeReason, message::Goodbye};

use crate::{Manager, live::LiveToken};

/// Whether a delegate of this name may connect from this address. An address that is not known is none that is allowed.
///
/// # Errors
/// The Goodbye that says which restriction it breaks.
pub(crate) fn allow(limits: &TokenLimits, name: &Name, address: Option<IpAddr>) -> Result<(), Goodbye> {
    let inside = |address: IpAddr| limits.allowed_cidrs.iter().any(|range| range.contains(&address));
    if !limits.allowed_cidrs.is_empty() && !address.is_some_and(inside) {
        let text = "the token does not allow connections from this address";
        return Err(Goodbye::new(GoodbyeReason::AddressRefused, text));
    }
    if !limits.allowed_names.is_empty() && !limits.allowed_names.iter().any(|pattern| pattern.matches(name)) {
        return Err(Goodbye::new(GoodbyeReason::NameRefused, "the token does not allow this DELEGATE_NAME"));
    }
    Ok(())
}

/// What a delegate is told for which the token's number has no room.
pub(crate) fn full() -> Goodbye {
    Goodbye::new(GoodbyeReason::MaxDelegates, "the token has as many delegates as it may")
}

impl Manager {
    /// Ends the sessions of a token that its rules do not allow any more, and waits until they are closed; how many.
    /// When there are too many, the oldest stay.
    ///
    /// The rules are in force by now: a session that is registered is looked at here, and one that registers later
    /// finds that they are not those it was admitted under. While the store cannot say from where a delegate is
    /// connected, its address is not known.
    pub(crate) async fn enforce_rules(&self, live: &LiveToken) -> usize {
        let rules = live.rules();
        let mut sessions = self.sessions.of_token(live.id);
        sessions.sort_by_key(|session| session.admission);
        let addresses = self.addresses(live).await.unwrap_or_default();
        let mut room = rules.limits.max_delegates.map_or(usize::MAX, |max| max as usize);
        let mut ended = Vec::new();
        for session in sessions {
            let address = addresses.get(&session.delegate).copied();
            let allowed = allow(&rules.limits, &session.name, address);
            match allowed.and_then(|()| if room == 0 { Err(full()) } else { Ok(()) }) {
                Ok(()) => room -= 1,
                Err(goodbye) => {
                    session.stop(Some(goodbye));
                    ended.push(session);
                }
            }
        }
        for session in &ended {
            session.closed().await;
        }
        ended.len()
    }

    /// From where the delegates of a token connected last.
    async fn addresses(&self, live: &LiveToken) -> Result<HashMap<DelegateId, IpAddr>, StoreError> {
        let id = live.id;
        let find = job(move |conn| Box::pin(async move { delegates::addresses(conn, id).await }));
        let addresses = self.store.read(find).await?;
        Ok(addresses.into_iter().filter_map(|(delegate, text)| Some((delegate, text.parse().ok()?))).collect())
    }
}
