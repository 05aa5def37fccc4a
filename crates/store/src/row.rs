//! Columns to values. A column that does not hold what it should is named in the error; its value is not.

use std::str::FromStr;

use legation_model::Millis;
use sqlx::{Any, ColumnIndex, Decode, Row as _, Type, any::AnyRow};

use crate::StoreError;

/// Reads typed columns from a row of either engine.
pub(crate) trait Columns {
    /// A column as it is; `Option` for one that may be null.
    fn plain<'r, T: Decode<'r, Any> + Type<Any>>(&'r self, column: &'static str) -> Result<T, StoreError>
    where
        &'static str: ColumnIndex<AnyRow>;

    /// A text.
    fn text(&self, column: &'static str) -> Result<String, StoreError>;

    /// A text that spells a value.
    fn word<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|_| unexpected(column))
    }

    /// A text that spells a value, or null.
    fn maybe_word<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError>;

    /// A text that spells values, separated by spaces.
    fn words<T: FromStr>(&self, column: &'static str) -> Result<Vec<T>, StoreError> {
        let text = self.text(column)?;
        text.split_whitespace().map(|word| word.parse().map_err(|_| unexpected(column))).collect()
    }

    /// A number that must fit into a narrower type.
    fn number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError>;

    /// A time.
    fn time(&self, column: &'static str) -> Result<Millis, StoreError> {
        self.number(column)
    }

    /// A number that must fit into a narrower type, or null.
    fn maybe_number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<T>, StoreError>;

    /// Bytes.
    fn bytes(&self, column: &'static str) -> Result<Vec<u8>, StoreError>;

    /// Exactly 32 bytes.
    fn key(&self, column: &'static str) -> Result<[u8; 32], StoreError> {
        self.bytes(column)?.try_into().map_err(|_| unexpected(column))
    }
}

impl Columns for AnyRow {
    fn plain<'r, T: Decode<'r, Any> + Type<Any>>(&'r self, column: &'static str) -> Result<T, StoreError> {
        self.try_get(column).map_err(|_| unexpected(column))
    }

    fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.plain(column)
    }

    fn maybe_word<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.plain(column)?;
        text.map(|text| text.parse().map_err(|_| unexpected(column))).transpose()
    }

    fn number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError> {
        self.maybe_number(column)?.ok_or_else(|| unexpected(column))
    }

    fn maybe_number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let number: Option<i64> = self.plain(column)?;
        number.map(|number| number.try_into().map_err(|_| unexpected(column))).transpose()
    }

    fn bytes(&self, column: &'static str) -> Result<Vec<u8>, StoreError> {
        self.plain(column)
    }
}

/// Spells values separated by spaces, as [`Columns::words`] reads them; none of their spellings has a space.
pub(crate) fn join<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

/// A count or counter as a column holds it.
pub(crate) fn integer(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::refused("a number is too large to be stored"))
}

fn unexpected(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column}"))
}
