//! The delegate's token: the account's default one at first, kept in a private file for the next run.

use legation_api::{
    Code,
    client::{Client, ClientError},
    tokens::{CreateToken, IssueToken, IssuedToken, TokensQuery},
};
use legation_model::{
    Name,
    ids::TokenId,
    token::{DEFAULT_TOKEN, Token, TokenStatus},
};

use super::places::Places;
use crate::{Failure, args::default_scope, exit_codes, private_file, ui::Ui, values::now};

/// Sees to it that the token file holds a token that admits delegates; its id.
pub(super) async fn ensure(places: &Places, client: &Client, ui: &Ui) -> Result<TokenId, Failure> {
    if let Some(id) = kept(places)? {
        match state(client, id).await? {
            Some(TokenStatus::Active) => return Ok(id),
            status => {
                let state = status.map_or("unknown to this Manager", TokenStatus::as_str);
                ui.note(&format!("Token     {id} of the earlier run is {state}: making a new one"));
                return keep(places, client.create_token(&CreateToken::new(default_scope(), new_name())).await?);
            }
        }
    }
    let issued = match unissued_default(client).await? {
        Some(id) => client.issue_token(id, &IssueToken::default()).await?,
        None => {
            ui.note(&format!("Token     {DEFAULT_TOKEN} has been issued elsewhere: making another one"));
            client.create_token(&CreateToken::new(default_scope(), new_name())).await?
        }
    };
    keep(places, issued)
}

/// The id of the token in the file. A file that holds something else is not overwritten.
fn kept(places: &Places) -> Result<Option<TokenId>, Failure> {
    let path = places.token();
    let Some(text) = private_file::read(&path)? else { return Ok(None) };
    match text.parse::<Token>() {
        Ok(token) => Ok(Some(token.id)),
        Err(error) => {
            Err(Failure::settings(format!("{}: {error}", path.display()), format!("remove {}", path.display())))
        }
    }
}

async fn state(client: &Client, id: TokenId) -> Result<Option<TokenStatus>, ClientError> {
    match client.token(id).await {
        Ok(token) => Ok(Some(token.status)),
        Err(error) if error.code() == Some(Code::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn unissued_default(client: &Client) -> Result<Option<TokenId>, ClientError> {
    let scope = default_scope();
    let query = TokensQuery { scope: Some(scope.clone()), name: DEFAULT_TOKEN.parse().ok(), ..TokensQuery::default() };
    let found = client.tokens(&query).await?.items.into_iter().find(|token| token.scope == scope);
    Ok(found.filter(|token| token.status == TokenStatus::Unissued).map(|token| token.id))
}

fn new_name() -> Name {
    format!("up-{}", now()).parse().expect("letters, a dash and digits")
}

/// Writes the value where only the delegate's own user can read it.
fn keep(places: &Places, issued: IssuedToken) -> Result<TokenId, Failure> {
    let value = issued.value.ok_or_else(|| {
        Failure::new(exit_codes::UNEXPECTED, "the Manager issued a token without its value", "run `legation up` again")
    })?;
    private_file::write(&places.token(), value.expose())?;
    Ok(issued.token.id)
}
