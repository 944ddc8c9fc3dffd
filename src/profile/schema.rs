//! The JSON Schema of profiles, for editors.

use serde_json::{Value, json};

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema" })
}
