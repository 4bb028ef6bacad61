//! Messages as JSON, in the form that Protocol Buffers define: names in camel case, 64-bit numbers as strings, enumerations by name.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use thiserror::Error;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_slice())
        .expect("the descriptors were just compiled")
});

/// A message cannot be read from JSON, or written as it.
#[derive(Debug, Error)]
pub enum JsonError {
    /// It is no JSON, or has a value of another type than its field.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The message's descriptor does not fit its type.
    #[error("{0} has no descriptor that fits it")]
    Descriptor(String),
}

/// Reads a message. Fields that it does not have are passed over, as in its binary form.
///
/// # Errors
/// [`JsonError::Json`], where what is there is not the message.
pub fn decode<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor::<M>()?, &mut reader, &options)?;
    reader.end()?;
    message.transcode_to().map_err(|_| JsonError::Descriptor(M::full_name()))
}

/// Writes a message. Fields that have their default are left out.
///
/// # Errors
/// [`JsonError::Descriptor`].
pub fn encode<M: Message + Name>(message: &M) -> Result<Vec<u8>, JsonError> {
    let mut dynamic = DynamicMessage::new(descriptor::<M>()?);
    dynamic.transcode_from(message).map_err(|_| JsonError::Descriptor(M::full_name()))?;
    let mut bytes = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut bytes);
    dynamic.serialize_with_options(&mut writer, &SerializeOptions::new())?;
    Ok(bytes)
}

fn descriptor<M: Name>() -> Result<MessageDescriptor, JsonError> {
    POOL.get_message_by_name(&M::full_name()).ok_or_else(|| JsonError::Descriptor(M::full_name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pyroscope::querier::v1::{FlameGraph, Level, ProfileFormat, SelectMergeStacktracesRequest};

    #[test]
    fn messages_are_read_as_protocol_buffers_have_them_in_json() {
        let text = r#"{"profileTypeID": "a:b:c:d:e", "start": "1767225600000", "end": 5, "maxNodes": null,
            "format": "PROFILE_FORMAT_FLAMEGRAPH", "newer": {"field": [1]}}"#;
        let read: SelectMergeStacktracesRequest = decode(text.as_bytes()).expect("a request");
        assert_eq!(
            (read.profile_type_id.as_str(), read.start, read.end),
            ("a:b:c:d:e", 1_767_225_600_000, 5)
        );
        assert_eq!((read.max_nodes, read.format()), (None, ProfileFormat::Flamegraph));
        for bad in ["", "[]", "{\"start\": \"x\"}", "{} {}", "{\"format\": []}"] {
            assert!(decode::<SelectMergeStacktracesRequest>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_of_64_bits_are_written_as_strings() {
        let graph = FlameGraph {
            names: vec!["total".to_owned()],
            levels: vec![Level { values: vec![0, 1 << 60] }],
            total: 1 << 60,
            max_self: 0,
        };
        let written = encode(&graph).expect("JSON");
        let wanted = r#"{"names":["total"],"levels":[{"values":["0","1152921504606846976"]}],"total":"1152921504606846976"}"#;
        assert_eq!(String::from_utf8(written).expect("text"), wanted);
    }
}
