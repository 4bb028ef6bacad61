//! zstd by contexts that each thread keeps. To make one takes as long as to decompress some kilobytes: it asks the processor what it can,
//! which hypervisors answer slowly, and a question reads thousands of small blobs.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::get_frame_content_size;

thread_local! {
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// Level of zstd: the fastest. What is compressed here lives for minutes.
const LEVEL: i32 = 1;
/// More than any of the store's frames holds: a length beyond it is damage, and no memory is asked for by it.
const MAX_OWN_BYTES: usize = 256 << 20;

/// Compresses, with a checksum and the length.
///
/// # Errors
/// Where there is no memory to compress with.
pub fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => {
                let mut compressor = Compressor::new(LEVEL)?;
                compressor.include_checksum(true)?;
                kept.insert(compressor)
            }
        };
        compressor.compress(bytes)
    })
}

/// What a frame holds, which has at most so many bytes.
///
/// # Errors
/// It is damaged, or holds more.
pub fn decompress(frame: &[u8], most: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress(frame, most)
    })
}

/// What a frame of [`compress`] holds.
///
/// # Errors
/// It is damaged.
pub fn decompress_own(frame: &[u8]) -> io::Result<Vec<u8>> {
    let length = get_frame_content_size(frame).ok().flatten().and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length <= MAX_OWN_BYTES);
    decompress(frame, length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_damage_is_found() {
        for bytes in [&b""[..], b"a", &[7; 1 << 20], b"what is stored"] {
            let frame = compress(bytes).expect("there is memory");
            assert_eq!(decompress_own(&frame).expect("it is whole"), bytes);
            assert_eq!(decompress(&frame, bytes.len()).expect("it has room"), bytes);
            for at in 0..frame.len() {
                let mut damaged = frame.clone();
                damaged[at] ^= 0x10;
                assert!(
                    !decompress_own(&damaged).is_ok_and(|found| found != bytes),
                    "byte {at} of {}",
                    frame.len()
                );
            }
        }
        let frame = compress(&[7; 100]).expect("there is memory");
        assert!(decompress(&frame, 99).is_err(), "more than was allowed");
        assert!(decompress_own(b"no frame").is_err());
    }
}
