//! The kernel's `jhash`, as nft's `jhash … mod … seed …` uses it.

/// `JHASH_INITVAL`
const START: u32 = 0xdead_beef;

/// What `jhash KEY mod MODULUS seed SEED` gives for a key of these bytes.
pub fn jhash(key: &[u8], modulus: u32, seed: u32) -> u32 {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut state = [START.wrapping_add(length).wrapping_add(seed); 3];
    let mut rest = key;
    while rest.len() > 12 {
        let (block, behind) = rest.split_at(12);
        add(&mut state, block, u32::from_ne_bytes);
        mix(&mut state);
        rest = behind;
    }
    if !rest.is_empty() {
        add(&mut state, rest, u32::from_le_bytes);
        finish(&mut state);
    }
    // The kernel's `reciprocal_scale`.
    let scaled = (u64::from(state[2]) * u64::from(modulus)) >> 32;
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

/// Adds up to 12 bytes: the kernel reads whole blocks as the machine does, the last one bytewise.
fn add(state: &mut [u32; 3], bytes: &[u8], read: fn([u8; 4]) -> u32) {
    for (part, word) in state.iter_mut().zip(bytes.chunks(4)) {
        let mut four = [0; 4];
        four[..word.len()].copy_from_slice(word);
        *part = part.wrapping_add(read(four));
    }
}

/// `__jhash_mix`
fn mix(state: &mut [u32; 3]) {
    let [mut a, mut b, mut c] = *state;
    for turns in [[4, 6, 8], [16, 19, 4]] {
        a = a.wrapping_sub(c) ^ c.rotate_left(turns[0]);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(turns[1]);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(turns[2]);
        b = b.wrapping_add(a);
    }
    *state = [a, b, c];
}

/// `__jhash_final`
fn finish(state: &mut [u32; 3]) {
    let [mut a, mut b, mut c] = *state;
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    *state = [a, b, c];
}

#[cfg(test)]
mod tests {
    use super::jhash;

    /// Read back from maps that nftables filled in a real kernel, on a little-endian machine.
    #[cfg(target_endian = "little")]
    #[test]
    fn it_is_the_kernels() {
        let host6 = "2001:db8::10".parse::<std::net::Ipv6Addr>().map(|a| a.octets());
        let host6 = host6.unwrap_or_default();
        let host4 = [192, 0, 2, 7];
        assert_eq!(jhash(&host6, u32::MAX, 0x686f_6d66), 3_818_850_005, "whole block and rest");
        assert_eq!(jhash(&host6, u32::MAX, 1), 3_838_277_650);
        assert_eq!(jhash(&host4, 256, 0x686f_6d65), 105);
        assert_eq!(jhash(&[host4, host4].concat(), 1000, 3), 920);
        assert_eq!(jhash(&[host4, host4, host4].concat(), 100_000, 3), 50_129, "a whole block");
    }
}
