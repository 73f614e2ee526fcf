//! Extracts certificates and keys from PEM.
//!
//! Only the boundaries of the blocks are parsed. The TLS library decodes their content, so that this module compiles without one.
//! Blocks of other types are removed: a file may contain a certificate and its key, and the key must not be stored with the
//! certificate.

/// Why a string is rejected, for the error message. It never quotes the string.
pub(super) type Reason = &'static str;

/// All certificates, without other blocks.
pub(super) fn certificates(text: &str) -> Result<String, Reason> {
    let certificates: String =
        blocks(text)?.into_iter().filter(|block| block.label == "CERTIFICATE").map(|block| block.text).collect();
    if certificates.is_empty() { Err("PEM without a certificate") } else { Ok(certificates) }
}

/// The first private key, without other blocks.
pub(super) fn private_key(text: &str) -> Result<String, Reason> {
    let key = blocks(text)?
        .into_iter()
        .find(|block| block.label.ends_with("PRIVATE KEY"))
        .ok_or("PEM without a private key")?;
    // PKCS#8 marks encryption in the label, and older formats in a header.
    if key.label == "ENCRYPTED PRIVATE KEY" || key.text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err("a private key with a passphrase");
    }
    Ok(key.text)
}

struct Block {
    label: String,
    text: String,
}

fn blocks(text: &str) -> Result<Vec<Block>, Reason> {
    // In a variable, line breaks may be written as the two characters `\n`.
    let one_line = !text.trim().contains('\n') && text.contains("\\n");
    let lines = if one_line { text.replace("\\n", "\n") } else { text.to_owned() };

    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in lines.lines().map(str::trim) {
        if let Some(label) = marker(line, "-----BEGIN ") {
            if open.is_some() {
                return Err("a PEM block without its END line");
            }
            open = Some(Block { label: label.to_owned(), text: String::new() });
        }
        let Some(block) = open.as_mut() else { continue };
        block.text.push_str(line);
        block.text.push('\n');
        if marker(line, "-----END ") == Some(block.label.as_str()) {
            blocks.extend(open.take());
        }
    }
    match (open, blocks.is_empty()) {
        (Some(_), _) => Err("a PEM block without its END line"),
        (None, true) => Err("no PEM (no line with -----BEGIN)"),
        (None, false) => Ok(blocks),
    }
}

fn marker<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{CERT, KEY, KEY_BODY};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_blocks_are_removed() {
        let both = format!("Bag Attributes\n{KEY}\n{CERT}junk\n{CERT}");
        assert_eq!(certificates(&both), Ok(format!("{CERT}{CERT}")));
        assert_eq!(private_key(&both), Ok(KEY.to_owned()));
        assert!(!certificates(&both).unwrap().contains(KEY_BODY));
    }

    #[test]
    fn all_line_endings_are_accepted() {
        for text in [CERT.replace('\n', "\r\n"), CERT.replace('\n', "\\n"), CERT.trim().replace('\n', "  \n  ")] {
            assert_eq!(certificates(&text), Ok(CERT.to_owned()), "{text}");
        }
    }

    #[test]
    fn invalid_pem_is_rejected() {
        assert_eq!(certificates(""), Err("no PEM (no line with -----BEGIN)"));
        assert_eq!(certificates("MIIB"), Err("no PEM (no line with -----BEGIN)"));
        assert_eq!(certificates(KEY), Err("PEM without a certificate"));
        assert_eq!(private_key(CERT), Err("PEM without a private key"));
        for open in ["-----BEGIN CERTIFICATE-----\nQ0VSVA==\n".to_owned(), format!("-----BEGIN X-----\n{CERT}")] {
            assert_eq!(certificates(&open), Err("a PEM block without its END line"));
        }
        let pkcs8 = KEY.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let old = KEY.replace("KEY-----\nS0", "KEY-----\nProc-Type: 4,ENCRYPTED\nS0");
        for encrypted in [pkcs8, old] {
            assert_eq!(private_key(&encrypted), Err("a private key with a passphrase"), "{encrypted}");
        }
        for kind in ["RSA PRIVATE", "EC PRIVATE"] {
            assert!(private_key(&KEY.replace("PRIVATE", kind)).is_ok());
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in any::<String>(), shuffled in "(-----BEGIN |-----END |CERTIFICATE|PRIVATE KEY|-----|\n|\\\\n|x){0,30}") {
            for text in [text, shuffled] {
                let _ = (certificates(&text), private_key(&text));
            }
        }
    }
}
