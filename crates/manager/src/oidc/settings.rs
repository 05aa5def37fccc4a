//! The settings of the identity provider, checked before the Manager starts.

use std::fs;

use anyhow::{Context, bail};
use legation_model::{Name, Scope, secret::SecretText};
use openidconnect::url::{Host, Url};

use crate::{config::Settings, grants::GRANTS_MAX};

const NAME_CLAIM: &str = "preferred_username";
const GROUPS_CLAIM: &str = "groups";
const SCOPES: [&str; 1] = ["profile"];

/// The identity provider at which people may log in.
#[derive(Clone, Debug)]
pub struct OidcSettings {
    /// Its issuer.
    pub issuer: String,
    /// What the Manager is called there.
    pub client_id: String,
    /// By which the Manager shows that it is that client.
    pub client_secret: Option<SecretText>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that new users are named after.
    pub name_claim: String,
    /// The claim that has the groups.
    pub groups_claim: String,
    /// Which group gives what, and where.
    pub grants: Vec<MappedRole>,
}

/// What one group gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedRole {
    /// The group, as the provider spells it.
    pub group: String,
    /// The role.
    pub role: Name,
    /// At and below this scope; everywhere without one.
    pub scope: Option<Scope>,
}

impl OidcSettings {
    /// The settings, if there is an issuer.
    ///
    /// # Errors
    /// One sentence per mistake, each naming the setting.
    pub fn of(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let Some(issuer) = settings.oidc_issuer.clone() else {
            let others = settings.oidc_client_id.is_some() || settings.oidc_grants.is_some();
            return if others { bail!("oidc-issuer is missing: the other settings of oidc need it") } else { Ok(None) };
        };
        check_issuer(&issuer)?;
        if settings.public_url.is_none() {
            bail!("oidc-issuer needs public-url: the identity provider sends browsers back there");
        }
        let client_id = settings.oidc_client_id.clone().context("oidc-client-id is missing")?;
        let client_secret = match &settings.oidc_client_secret_file {
            None => None,
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| {
                    format!(
                        "cannot read {}: oidc-client-secret-file wants a file that this user can read",
                        path.display()
                    )
                })?;
                Some(SecretText::new(text.trim().to_owned()))
            }
        };
        let grants: Vec<MappedRole> =
            settings.oidc_grants.iter().flatten().map(|text| mapped(text)).collect::<anyhow::Result<_>>()?;
        if grants.is_empty() {
            bail!("oidc-grants is missing: without it nobody is let in; write for example platform=admin");
        }
        if grants.len() > GRANTS_MAX {
            bail!("oidc-grants has more than {GRANTS_MAX} entries: one user can have no more grants");
        }
        Ok(Some(Self {
            issuer,
            client_id,
            client_secret,
            scopes: settings.oidc_scopes.clone().unwrap_or_else(|| SCOPES.map(str::to_owned).to_vec()),
            name_claim: settings.oidc_name_claim.clone().unwrap_or_else(|| NAME_CLAIM.to_owned()),
            groups_claim: settings.oidc_groups_claim.clone().unwrap_or_else(|| GROUPS_CLAIM.to_owned()),
            grants,
        }))
    }

    /// Whether requests to the provider go without TLS, which they do on this machine alone.
    pub(super) fn is_plain(&self) -> bool {
        self.issuer.starts_with("http://")
    }
}

fn check_issuer(issuer: &str) -> anyhow::Result<()> {
    let url: Url = issuer.parse().ok().context("oidc-issuer is no address: write it like https://id.example.com")?;
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() == "https" || (url.scheme() == "http" && here) {
        return Ok(());
    }
    bail!("oidc-issuer must be https, except on this machine: whoever sits on the way could log in as anybody")
}

/// `GROUP=ROLE@SCOPE` or `GROUP=ROLE`; a group may have equals signs in it, a role and a scope have none.
fn mapped(text: &str) -> anyhow::Result<MappedRole> {
    let wrong = || format!("oidc-grants has {text:?}: write GROUP=ROLE for everywhere, or GROUP=ROLE@SCOPE");
    let (group, given) = text.trim().rsplit_once('=').filter(|(group, _)| !group.is_empty()).with_context(wrong)?;
    let (role, scope) = match given.split_once('@') {
        Some((role, scope)) => (role, Some(scope.parse::<Scope>().ok().with_context(wrong)?)),
        None => (given, None),
    };
    let role: Name = role.parse().ok().with_context(wrong)?;
    Ok(MappedRole { group: group.to_owned(), role, scope })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut Settings)) -> anyhow::Result<Option<OidcSettings>> {
        let mut settings = Settings {
            oidc_issuer: Some("https://id.example.com".to_owned()),
            oidc_client_id: Some("legation".to_owned()),
            oidc_grants: Some(vec!["platform=admin".to_owned()]),
            public_url: Some("https://legation.example.com".to_owned()),
            ..Settings::default()
        };
        change(&mut settings);
        OidcSettings::of(&settings)
    }

    #[test]
    fn a_group_gives_a_role_somewhere_or_everywhere() {
        let given = |text: &str| mapped(text).map(|m| (m.group, m.role.to_string(), m.scope.map(|s| s.to_string())));
        let everywhere = given("platform=admin").expect("a mapping");
        assert_eq!(everywhere, ("platform".to_owned(), "admin".to_owned(), None));
        let somewhere = given("cn=devs, ou=x=operator@acme/eng").expect("a mapping");
        assert_eq!(somewhere, ("cn=devs, ou=x".to_owned(), "operator".to_owned(), Some("acme/eng".to_owned())));
        for wrong in ["", "platform", "=admin", "platform=", "platform=admin@", "platform=admin@A B"] {
            assert!(mapped(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mistakes_name_the_setting() {
        assert!(settings(|_| {}).expect("settings").is_some());
        let told = |change: fn(&mut Settings)| settings(change).expect_err("a refusal").to_string();
        assert!(told(|settings| settings.public_url = None).contains("public-url"));
        assert!(told(|settings| settings.oidc_client_id = None).contains("oidc-client-id"));
        assert!(told(|settings| settings.oidc_grants = None).contains("oidc-grants"));
        assert!(told(|settings| settings.oidc_issuer = None).contains("oidc-issuer"));
        assert!(told(|settings| settings.oidc_issuer = Some("http://id.example.com".into())).contains("https"));
        assert!(told(|settings| settings.oidc_issuer = Some("id".into())).contains("oidc-issuer"));
        assert!(told(|settings| settings.oidc_client_secret_file = Some("/none".into())).contains("/none"));
        assert!(settings(|settings| settings.oidc_issuer = Some("http://127.0.0.1:9400".into())).is_ok());
    }
}
