//! Numbers in decimal.

/// Writes a number, several times as fast as the formatter of the library.
pub(super) fn put_number(line: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let (mut rest, mut count) = (number, 0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        (rest, count) = (rest / 10, count + 1);
        if rest == 0 {
            break;
        }
    }
    line.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

/// Writes a number with its last digits, so many as are asked for.
pub(super) fn put_digits(line: &mut Vec<u8>, number: u64, count: u32) {
    for place in (0..count).rev() {
        let digit = number / 10_u64.pow(place) % 10;
        line.push(b'0' + digit as u8);
    }
}
