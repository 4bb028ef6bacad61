//! Numbers of few bytes where they are small: seven bits a byte, the lowest first, as protobuf has them.

pub(super) use chokepoint_symbols::varint::{put, take};

/// Adds the difference of two numbers, which is small in either direction where they are close.
pub(super) fn put_difference(bytes: &mut Vec<u8>, from: u64, to: u64) {
    let difference = to.wrapping_sub(from).cast_signed();
    put(bytes, ((difference << 1) ^ (difference >> 63)).cast_unsigned());
}

/// Takes what [`put_difference`] added; the number that the first one became.
pub(super) fn take_difference(bytes: &mut &[u8], from: u64) -> Option<u64> {
    let zigzag = take(bytes)?;
    let difference = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
    Some(from.wrapping_add(difference.cast_unsigned()))
}

/// Takes a number that fits 32 bits.
pub(super) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take(bytes)?).ok()
}

/// Numbers, each at least as great as the one before.
pub(super) fn of_ascending(numbers: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(numbers.len());
    let mut before = 0;
    for number in numbers {
        put_difference(&mut bytes, before, u64::from(*number));
        before = u64::from(*number);
    }
    bytes
}

/// What [`of_ascending`] wrote; `None` where it is damaged.
pub(super) fn ascending(mut bytes: &[u8]) -> Option<Vec<u32>> {
    let mut numbers = Vec::with_capacity(bytes.len());
    let mut before = 0;
    while !bytes.is_empty() {
        before = take_difference(&mut bytes, before)?;
        numbers.push(u32::try_from(before).ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_damage_is_seen() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        let mut bytes = Vec::new();
        let mut before = 5;
        for number in numbers {
            put(&mut bytes, number);
            put_difference(&mut bytes, before, number);
            before = number;
        }
        let (mut rest, mut before) = (bytes.as_slice(), 5);
        for number in numbers {
            assert_eq!(take(&mut rest), Some(number));
            before = take_difference(&mut rest, before).expect("a difference");
            assert_eq!(before, number);
        }
        assert!(rest.is_empty() && take(&mut rest).is_none());
        assert_eq!(take(&mut [0x80u8; 11].as_slice()), None);
        let ascending_numbers = [3, 3, 900, u32::MAX];
        assert_eq!(ascending(&of_ascending(&ascending_numbers)).as_deref(), Some(&ascending_numbers[..]));
        assert_eq!(ascending(&[0x80]), None);
    }
}
