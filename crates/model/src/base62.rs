//! Fixed-width base62, so that every id and secret has one spelling and one length.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Appends `bytes`, read as one big-endian number, as exactly `width` digits.
///
/// `width` must be large enough for the number; the callers' constants are (22 for 16 bytes, 43 for 32,
/// 6 for 4, 3 for a generation).
pub(crate) fn encode(bytes: &[u8], width: usize, out: &mut String) {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut digits = Zeroizing::new(vec![0_u8; width]);
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[divide(&mut number) as usize];
    }
    out.extend(digits.iter().map(|digit| *digit as char));
}

/// Reads digits into `out`; `None` for a character outside the alphabet or a number that does not fit.
pub(crate) fn decode(digits: &str, out: &mut [u8]) -> Option<()> {
    out.fill(0);
    for digit in digits.bytes() {
        let mut carry = u32::from(value(digit)?);
        for byte in out.iter_mut().rev() {
            carry += u32::from(*byte) * 62;
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(())
}

/// Divides the number by 62 in place and returns the remainder.
fn divide(number: &mut [u8]) -> u8 {
    let mut remainder = 0_u32;
    for byte in number {
        let current = (remainder << 8) | u32::from(*byte);
        *byte = (current / 62) as u8;
        remainder = current % 62;
    }
    remainder as u8
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'Z' => Some(digit - b'A' + 10),
        b'a'..=b'z' => Some(digit - b'a' + 36),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_numbers_fit_their_widths_and_come_back() {
        for (bytes, width) in [(4, 6), (16, 22), (32, 43)] {
            for fill in [0_u8, 1, 0x7f, 0xff] {
                let number = vec![fill; bytes];
                let mut text = String::new();
                encode(&number, width, &mut text);
                assert_eq!(text.len(), width);
                let mut back = vec![9; bytes];
                assert_eq!(decode(&text, &mut back), Some(()));
                assert_eq!(back, number);
            }
        }
    }

    #[test]
    fn a_number_too_large_or_a_strange_digit_is_refused() {
        assert_eq!(decode("zzzzzz", &mut [0; 4]), None);
        assert_eq!(decode("00000-", &mut [0; 4]), None);
    }
}
