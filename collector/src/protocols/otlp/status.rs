//! What an error says beside its code: `google.rpc.Status`, as gRPC has it in its details and OTLP over HTTP in its bodies.

use std::time::Duration;

use prost::Message;

/// What a detail's type is called that says when to come again.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// What is read and written of it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Told {
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Told {
    /// Says this.
    pub(super) fn new(message: String) -> Self {
        Self { message, details: Vec::new() }
    }

    /// When to come again; `None`: it does not say that one may.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let detail = self.details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
        let delay = RetryInfo::decode(detail.value.as_slice()).ok()?.delay.unwrap_or_default();
        let seconds = u64::try_from(delay.seconds).unwrap_or_default();
        Some(Duration::new(seconds, u32::try_from(delay.nanos).unwrap_or_default().min(999_999_999)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_when_to_come_again_is_understood_and_others_are_not_asked_again() {
        let with = |delay: Option<Delay>| {
            let value = RetryInfo { delay }.encode_to_vec();
            let details = vec![Detail { type_url: RETRY_INFO.to_owned(), value }];
            Told { message: String::new(), details }
        };
        let after =
            |told: &Told| Told::decode(told.encode_to_vec().as_slice()).expect("it is one").retry_after();
        assert_eq!(after(&with(Some(Delay { seconds: 2, nanos: 5 }))), Some(Duration::new(2, 5)));
        assert_eq!(after(&with(Some(Delay { seconds: -2, nanos: -5 }))), Some(Duration::ZERO));
        assert_eq!(after(&with(None)), Some(Duration::ZERO));
        assert_eq!(after(&Told::new("no".to_owned())), None);
    }
}
