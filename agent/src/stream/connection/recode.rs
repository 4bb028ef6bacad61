//! Between windows that stand for themselves and those of a stream.

use std::io::{self, Read};

use chokepoint_proto::dictionary::{Invalid, Sender};
use chokepoint_proto::stream::Window;
use prost::Message;
use thiserror::Error;

/// Levels above cost several times as much for a tenth less.
const LEVEL: i32 = 3;

/// A window that cannot be sent.
#[derive(Debug, Error)]
pub enum RecodeError {
    /// It does not decompress to what it should.
    #[error("it does not decompress: {0}")]
    Compression(#[from] io::Error),
    /// It is no message.
    #[error("it is not a window: {0}")]
    Message(#[from] prost::DecodeError),
    /// It refers to what it does not have.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Compresses a window as it waits. Returns how long it is uncompressed, too.
///
/// # Errors
/// Where there is no memory for it.
pub fn compress(window: &Window) -> io::Result<(Vec<u8>, u64)> {
    let bytes = window.encode_to_vec();
    Ok((zstd::bulk::compress(&bytes, LEVEL)?, bytes.len() as u64))
}

/// The window as the sender's stream is to carry it, compressed, and how long it is uncompressed.
///
/// # Errors
/// Where it was damaged. The stream's dictionary is as it was then.
pub fn recode(window: &[u8], window_bytes: u64, sender: &mut Sender) -> Result<(Vec<u8>, u64), RecodeError> {
    let mut bytes = Vec::new();
    zstd::Decoder::new(window)?.take(window_bytes).read_to_end(&mut bytes)?;
    let whole = Window::decode(&bytes[..])?;
    Ok(compress(&sender.next(&whole)?)?)
}

#[cfg(test)]
mod tests {
    use chokepoint_proto::stream::Dictionary;

    use super::*;

    #[test]
    fn a_stream_says_a_dictionary_once_and_what_is_damaged_changes_nothing() {
        let dictionary = Dictionary { reset: true, strings: vec!["a".repeat(1000)], ..Dictionary::default() };
        let whole = Window { duration_ns: 1, dictionary: Some(dictionary), ..Window::default() };
        let (compressed, length) = compress(&whole).expect("there is memory");
        let mut sender = Sender::new();
        let (_, first) = recode(&compressed, length, &mut sender).expect("it is whole");
        assert!(recode(&compressed[1..], length, &mut sender).is_err());
        assert!(recode(&compressed, length / 2, &mut sender).is_err());
        let (_, second) = recode(&compressed, length, &mut sender).expect("it is whole");
        assert!(first > 1000 && second < 20, "{first} {second}");
    }
}
