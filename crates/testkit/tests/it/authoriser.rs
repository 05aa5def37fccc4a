//! A million decisions about access, compared with an authoriser that was written apart from ours.

use legation_model::{
    Scope,
    access::{Decision, Held, Holding, Permission, Permissions, Role},
};
use legation_testkit::seed::seed;
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

/// Callers that are drawn, and decisions about each: a million in all.
const CALLERS: usize = 20_000;
const DECISIONS: usize = 50;

/// A role, what it holds, and the place it was given for.
type Given = (String, Vec<&'static str>, Option<String>);

/// The reference: sentences about words, with nothing of the house in them.
mod reference {
    const LOOKING: [&str; 4] = ["core_account_view", "core_delegate_view", "core_task_view", "core_metrics_view"];
    const OPERATING: [&str; 3] = ["core_delegate_edit", "core_task_run", "core_access_view"];

    /// What somebody with these grants, through a key of that place, is told about `needed` at `object`.
    pub(super) fn decide(
        grants: &[super::Given],
        key: Option<&str>,
        needed: &str,
        object: Option<&str>,
    ) -> &'static str {
        let may = |word: &str| {
            let gives = |(role, own, place): &&super::Given| {
                let in_role = match role.as_str() {
                    "admin" => true,
                    "operator" => LOOKING.contains(&word) || OPERATING.contains(&word),
                    "viewer" => LOOKING.contains(&word),
                    _ => own.contains(&word),
                };
                in_role && lies_in(object, place.as_deref()) && lies_in(object, key)
            };
            grants.iter().any(|grant| gives(&grant))
        };
        let noun = &needed[..needed.rfind('_').expect("a word of three parts")];
        if may(needed) {
            "allowed"
        } else if may(&format!("{noun}_view")) {
            "forbidden"
        } else {
            "hidden"
        }
    }

    fn lies_in(object: Option<&str>, place: Option<&str>) -> bool {
        let Some(place) = place else { return true };
        let Some(object) = object else { return false };
        let (mut way, place) = (object.split('/'), place.split('/'));
        place.into_iter().all(|step| way.next() == Some(step))
    }
}

fn place(random: &mut ChaCha8Rng) -> Option<String> {
    // Few names, one of which begins with another: they must meet often.
    let levels = random.random_range(0..=3);
    let steps: Vec<_> = (0..levels).map(|_| *["a", "ab", "b"].choose(random).expect("a name")).collect();
    (levels > 0).then(|| steps.join("/"))
}

fn scope(place: Option<&String>) -> Option<Scope> {
    place.map(|text| text.parse().expect("a scope"))
}

fn given(random: &mut ChaCha8Rng) -> Given {
    let role = *["admin", "operator", "viewer", "own", "own", "own"].choose(random).expect("a role");
    let words = Permission::ALL.into_iter().filter(|_| random.random_bool(0.2)).map(Permission::as_str).collect();
    (role.to_owned(), words, place(random))
}

fn holding((role, own, place): &Given) -> Holding {
    let custom = || own.iter().map(|word| word.parse::<Permission>().expect("a permission")).collect::<Permissions>();
    let permissions = role.parse::<Role>().map_or_else(|_| custom(), Role::permissions);
    Holding { permissions, scope: scope(place.as_ref()) }
}

#[test]
fn a_million_decisions_are_those_of_the_reference() {
    let seed = seed();
    let random = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut told = [0_u32; 3];
    for _ in 0..CALLERS {
        let grants: Vec<Given> = (0..random.random_range(0..5)).map(|_| given(random)).collect();
        let key = place(random).filter(|_| random.random_bool(0.5));
        let held = Held::new(grants.iter().map(holding), scope(key.as_ref()).as_ref());
        for _ in 0..DECISIONS {
            let (needed, object) = (*Permission::ALL.choose(random).expect("a permission"), place(random));
            let (place, expected) = (
                scope(object.as_ref()),
                reference::decide(&grants, key.as_deref(), needed.as_str(), object.as_deref()),
            );
            let (at, decided) = match held.decide(needed, place.as_ref()) {
                Decision::Allowed => (0, "allowed"),
                Decision::Forbidden => (1, "forbidden"),
                Decision::Hidden => (2, "hidden"),
            };
            assert_eq!(
                decided, expected,
                "{needed} at {object:?} with {grants:?} through a key of {key:?}, seed {seed}"
            );
            // A list shows an object exactly if it may be looked at by itself.
            if let Some(place) = &place {
                assert_eq!(held.within(needed).contains(place), decided == "allowed", "{needed} at {place} in a list");
            }
            told[at] += 1;
        }
    }
    assert!(told.iter().all(|count| *count > 10_000), "{told:?} says little");
}
