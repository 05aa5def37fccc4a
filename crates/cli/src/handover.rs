//! What to paste where a delegate is to run. The texts are the API's own.

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use legation_api::handover::{Commands, FILE, Handover, Place};

use crate::ui::Ui;

/// For where to say what to paste.
#[derive(Clone, Copy, Debug, Args)]
pub struct Paste {
    /// Also say, on standard error, what to paste where a delegate is to run
    #[arg(long = "commands", value_parser = place(), value_name = "PLACE")]
    place: Option<Place>,
}

/// Reads the word for a place.
fn place() -> impl TypedValueParser<Value = Place> {
    let values = Place::ALL.map(|place| PossibleValue::new(place.as_str()).help(place.meaning()));
    PossibleValuesParser::new(values)
        .map(|word| Place::ALL.into_iter().find(|place| place.as_str() == word).unwrap_or(Place::Env))
}

impl Paste {
    /// Says it: in the Manager's words if it knows its own address, and otherwise with the one that it was reached at.
    pub fn say(self, ui: &Ui, commands: Option<&Commands>, own: &Handover<'_>) {
        let Some(place) = self.place else { return };
        match commands.filter(|commands| commands.note.is_none()) {
            Some(commands) => ui.note_lines(commands.of(place)),
            None => ui.note_lines(&own.commands(place)),
        }
    }
}

/// How to start a delegate with the value in the file, for somebody who knows the rest.
pub fn start(url: &str) -> [String; 2] {
    [
        format!("keep the value in a file that only its reader can open ({FILE}), then start a delegate:"),
        format!("DELEGATE_TOKEN_FILE={FILE} MANAGER_HOST_AND_PORT={url} legation-delegate"),
    ]
}
