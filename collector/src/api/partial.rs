//! Answers of a store of which a part did not answer: they are marked, whatever their format.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use super::answer::Answer;
use super::endpoints::JSON;

/// The header of an answer that is not of all shards; its value says which are missing and why.
pub const PARTIAL: HeaderName = HeaderName::from_static("x-chokepoint-partial");
/// The field of the same in answers that are JSON objects.
const FIELD: &str = "partial";
/// Bytes of the header's value at most.
const MAX_VALUE_BYTES: usize = 1024;

/// Says in the answer itself what is missing, where its format has room for that: in JSON as the object's first field.
pub(super) fn mark_body(answer: &mut Answer, missing: &[String]) {
    if missing.is_empty() || answer.content_type != JSON {
        return;
    }
    let Some(rest) = answer.bytes.strip_prefix(b"{") else { return };
    let told = serde_json::to_string(missing).unwrap_or_default();
    let comma = if rest.trim_ascii_start().starts_with(b"}") { "" } else { "," };
    let mut bytes = format!("{{\"{FIELD}\":{told}{comma}").into_bytes();
    bytes.extend_from_slice(rest);
    answer.bytes = bytes;
}

/// Says in a header what is missing.
pub(super) fn mark(response: &mut Response, missing: &[String]) {
    if missing.is_empty() {
        return;
    }
    let told = missing.join("; ");
    let printable = told.bytes().map(|byte| if (0x20..0x7f).contains(&byte) { byte } else { b'?' });
    let value: Vec<u8> = printable.take(MAX_VALUE_BYTES).collect();
    // It is of printable characters.
    if let Ok(value) = HeaderValue::from_bytes(&value) {
        response.headers_mut().insert(PARTIAL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(content_type: &'static str, text: &str, missing: &[&str]) -> String {
        let missing: Vec<String> = missing.iter().map(|text| (*text).to_owned()).collect();
        let mut answer =
            Answer { content_type, file_name: None, bytes: text.as_bytes().to_vec(), room: None };
        mark_body(&mut answer, &missing);
        String::from_utf8(answer.bytes).expect("text")
    }

    #[test]
    fn answers_say_what_is_missing() {
        assert_eq!(marked(JSON, r#"{"a":1}"#, &[]), r#"{"a":1}"#);
        assert_eq!(marked(JSON, r#"{"a":1}"#, &["b \"c\""]), r#"{"partial":["b \"c\""],"a":1}"#);
        assert_eq!(marked(JSON, "{}", &["b"]), r#"{"partial":["b"]}"#);
        assert_eq!(marked("text/plain", "{}", &["b"]), "{}");
        let mut response = Response::new(axum::body::Body::empty());
        mark(&mut response, &["shard 1\n".to_owned(), "x".repeat(5_000)]);
        let value = response.headers()[&PARTIAL].to_str().expect("text").to_owned();
        assert!(value.starts_with("shard 1?; xxx") && value.len() == MAX_VALUE_BYTES);
    }
}
