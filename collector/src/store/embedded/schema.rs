//! The catalogue's schema, and how a catalogue that is older becomes one of today.

use rusqlite::{Connection, TransactionBehavior};

use super::{OpenError, failed};

/// What leads from each version to the next; the first from an empty file. A step that was released is never changed.
const STEPS: &[&str] =
    &[include_str!("schema.sql"), include_str!("schema_2.sql"), include_str!("schema_3.sql")];

/// The version that this program writes.
pub(super) const VERSION: usize = STEPS.len();

/// Brings the catalogue up to this program's version, all steps or none.
///
/// # Errors
/// Where it is newer, or cannot be written.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let step = || "cannot prepare the store's catalogue".to_owned();
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(step))?;
    let version: usize =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed(step))?;
    if version > VERSION {
        return Err(OpenError::TooNew { found: version, known: VERSION });
    }
    for sql in &STEPS[version..] {
        transaction.execute_batch(sql).map_err(failed(step))?;
    }
    transaction.pragma_update(None, "user_version", VERSION).map_err(failed(step))?;
    Ok(transaction.commit().map_err(failed(step))?)
}
