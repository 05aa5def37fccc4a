//! A look at a whole frame before any of it is decoded: nothing too deep, nothing that claims more than is there.

use crate::Close;

/// How deeply arrays and maps may be nested. The deepest message needs 6; the rest is room for new fields.
pub const DEPTH_MAX: usize = 16;

/// Checks that the frame is exactly one CBOR item of the kind this protocol uses (RFC 8949): definite
/// lengths only, no tags, at most [`DEPTH_MAX`] levels, and no length beyond what the frame still holds.
///
/// It neither recurses nor allocates, so that what comes after may trust lengths and depth.
pub(crate) fn check(frame: &[u8]) -> Result<(), Close> {
    let mut rest = frame;
    let mut open = [0_u64; DEPTH_MAX];
    let mut depth = 0;
    loop {
        let children = item(&mut rest)?;
        if children > rest.len() as u64 {
            return Err(Close::BadFrame);
        }
        if children > 0 {
            *open.get_mut(depth).ok_or(Close::BadFrame)? = children;
            depth += 1;
            continue;
        }
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return if rest.is_empty() { Ok(()) } else { Err(Close::BadFrame) };
        }
    }
}

/// Steps over one item's head (and a string's content); answers how many items lie inside it.
fn item(rest: &mut &[u8]) -> Result<u64, Close> {
    let (&first, tail) = rest.split_first().ok_or(Close::BadFrame)?;
    *rest = tail;
    let argument = argument(first & 0x1f, rest)?;
    match first >> 5 {
        0 | 1 | 7 => Ok(0),
        2 | 3 => {
            let length = usize::try_from(argument).map_err(|_| Close::BadFrame)?;
            *rest = rest.get(length..).ok_or(Close::BadFrame)?;
            Ok(0)
        }
        4 => Ok(argument),
        5 => argument.checked_mul(2).ok_or(Close::BadFrame),
        _ => Err(Close::BadFrame),
    }
}

/// The number in an item's head: in the first byte itself, or in the 1, 2, 4 or 8 bytes after it.
fn argument(short: u8, rest: &mut &[u8]) -> Result<u64, Close> {
    let width = match short {
        0..=23 => return Ok(u64::from(short)),
        24..=27 => 1 << (short - 24),
        _ => return Err(Close::BadFrame),
    };
    let (number, tail) = rest.split_at_checked(width).ok_or(Close::BadFrame)?;
    *rest = tail;
    Ok(number.iter().fold(0, |sum, &byte| (sum << 8) | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_item_passes() {
        for frame in [&[0x00][..], &[0x80], &[0x82, 0x01, 0x41, 0xff], &[0xa1, 0x01, 0x81, 0xf6], &[0xfb; 9]] {
            assert_eq!(check(frame), Ok(()), "{frame:x?}");
        }
    }

    #[test]
    fn claims_beyond_the_frame_are_refused() {
        let huge = [0xff; 8];
        for major in [0x5b, 0x7b, 0x9b, 0xbb] {
            let frame: Vec<u8> = [&[major][..], &huge, &[0; 20]].concat();
            assert_eq!(check(&frame), Err(Close::BadFrame), "{major:x}");
        }
        for frame in [&[][..], &[0x82, 0x01], &[0x42, 0x01], &[0x01, 0x01], &[0x19, 0x01], &[0xa1, 0x01]] {
            assert_eq!(check(frame), Err(Close::BadFrame), "{frame:x?}");
        }
    }

    #[test]
    fn indefinite_lengths_tags_and_reserved_heads_are_refused() {
        for frame in [&[0x9f, 0xff][..], &[0x5f, 0xff], &[0xc0, 0x00], &[0xff], &[0x1c], &[0xfc]] {
            assert_eq!(check(frame), Err(Close::BadFrame), "{frame:x?}");
        }
    }

    #[test]
    fn nesting_ends_at_its_bound() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(check(&nested(DEPTH_MAX + 1)), Err(Close::BadFrame));
        assert_eq!(check(&nested(1_000_000)), Err(Close::BadFrame));
    }
}
