//! The function `checksum` of the engine: SHA-256, in hexadecimal.

/// The first 32 bits of the fractions of the square roots of the first primes.
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The first 32 bits of the fractions of the cube roots of the first primes.
const ROUNDS: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

pub(super) fn checksum(bytes: &[u8]) -> String {
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize((bytes.len() + 9).next_multiple_of(64) - 8, 0);
    let bits = u64::try_from(bytes.len()).unwrap_or(u64::MAX).wrapping_mul(8);
    padded.extend(bits.to_be_bytes());
    let state = padded.as_chunks::<64>().0.iter().fold(START, compress);
    state.iter().fold(String::new(), |text, word| text + &format!("{word:08x}"))
}

#[expect(clippy::many_single_char_names, reason = "the names in the standard")]
fn compress(state: [u32; 8], block: &[u8; 64]) -> [u32; 8] {
    let words = block.as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes));
    // The last sixteen words of the schedule, from the oldest to the newest.
    let mut window: std::collections::VecDeque<u32> = words.collect();
    let mut current = state;
    for round in ROUNDS {
        let word = |index: usize| window.get(index).copied().unwrap_or_default();
        let (w0, w1, w9, w14) = (word(0), word(1), word(9), word(14));
        let [a, b, c, d, e, f, g, h] = current;
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(round).wrapping_add(w0);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        current = [t1.wrapping_add(s0).wrapping_add(majority), a, b, c, d.wrapping_add(t1), e, f, g];
        let low = w1.rotate_right(7) ^ w1.rotate_right(18) ^ (w1 >> 3);
        let high = w14.rotate_right(17) ^ w14.rotate_right(19) ^ (w14 >> 10);
        window.pop_front();
        window.push_back(w0.wrapping_add(low).wrapping_add(w9).wrapping_add(high));
    }
    let mut sums = state.iter().zip(current).map(|(before, after)| before.wrapping_add(after));
    std::array::from_fn(|_| sums.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::checksum;

    /// The values of FIPS 180-2, and of lengths around that of a block.
    #[test]
    fn checksums_are_those_of_sha_256() {
        for (text, expected) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
            (&"a".repeat(55), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"),
            (&"a".repeat(64), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"),
        ] {
            assert_eq!(checksum(text.as_bytes()), expected, "{text}");
        }
    }
}
