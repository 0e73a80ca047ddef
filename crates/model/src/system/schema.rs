//! The JSON schema of the system file, for editors.

use serde_json::Value;

use super::read::FileTable;

/// The JSON schema (draft 2020-12) of the system file. Editors complete, explain and check a file by it; `mainstay check`
/// knows more rules than it can express.
pub fn schema() -> Value {
    schemars::schema_for!(FileTable).to_value()
}
