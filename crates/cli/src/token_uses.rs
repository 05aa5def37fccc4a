//! `legation token show` and `legation token uses`: a token, who holds it now, who held it before, and from where.

use legation_api::{
    List,
    client::{Client, ClientError},
    page::PageQuery,
    token_uses::TokenUse,
    tokens::Token,
};
use legation_model::ids::TokenId;
use serde::Serialize;

use crate::{
    Context, Failure,
    args::Paging,
    exit_codes,
    tokens::{Which, after_show},
    ui::{self, Format, Row, Show, Ui},
    values::show_time,
};

/// Lines that are shown with a token: what fits on a screen.
const SHOWN: u32 = 20;

/// A token, and those who used it last.
#[derive(Serialize)]
struct Holders {
    #[serde(flatten)]
    token: Token,
    holders: List<TokenUse>,
}

/// Shows a token and those who used it last.
///
/// # Errors
/// There is none, or as the Manager refuses.
pub async fn show(context: &Context, which: &Which) -> Result<u8, Failure> {
    let (client, ui) = (&context.client, &context.ui);
    let token = which.find(client).await?;
    let holders = page(client, token.id, Some(SHOWN), None).await?;
    let more = holders.next.is_some().then(|| format!("legation token uses {}", token.id));
    let next: Vec<String> = more.into_iter().chain(after_show(&token)).collect();
    ui.show_held(&Holders { token, holders })?;
    ui.next(&next);
    Ok(exit_codes::OK)
}

/// Lists who used a token.
///
/// # Errors
/// There is none, or as the Manager refuses.
pub async fn list(context: &Context, which: &Which, paging: Paging) -> Result<u8, Failure> {
    let (client, ui) = (&context.client, &context.ui);
    let token = which.find(client).await?;
    let all = paging.collect(async |limit, cursor| page(client, token.id, limit, cursor).await).await?;
    ui.list(&all)?;
    ui.next(&["legation delegate show DELEGATE".to_owned(), format!("legation token revoke {}", token.id)]);
    Ok(exit_codes::OK)
}

async fn page(
    client: &Client,
    token: TokenId,
    limit: Option<u32>,
    cursor: Option<String>,
) -> Result<List<TokenUse>, ClientError> {
    client.token_uses(token, &PageQuery { limit, cursor }).await
}

impl Ui {
    /// Prints a token with those who hold it and those who held it.
    fn show_held(&self, held: &Holders) -> Result<(), Failure> {
        let head = ui::show(self.format, held)?;
        if self.format != Format::Table || held.holders.items.is_empty() {
            return ui::print(&head);
        }
        ui::print(&format!("{head}\n\n{}", ui::table(TokenUse::COLUMNS, held.holders.items.iter().map(Row::row))))?;
        if held.holders.next.is_some() {
            self.note(&format!("there are more; `legation token uses {}` shows them", held.token.id));
        }
        Ok(())
    }
}

impl Show for Holders {
    fn name(&self) -> String {
        self.token.name()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        self.token.fields()
    }
}

impl Show for TokenUse {
    fn name(&self) -> String {
        self.delegate.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        TokenUse::COLUMNS.iter().copied().zip(self.row()).collect()
    }
}

impl Row for TokenUse {
    const COLUMNS: &'static [&'static str] = &["held", "delegate", "name", "from", "first used", "last used", "times"];

    fn row(&self) -> Vec<String> {
        vec![
            if self.connected { "now" } else { "before" }.to_owned(),
            self.delegate.to_string(),
            self.name.to_string(),
            self.address.to_string(),
            show_time(self.first_used_at),
            show_time(self.last_used_at),
            self.uses.to_string(),
        ]
    }
}
