//! Hashes that other systems store beside their data.

use md5::{Digest as _, Md5};

/// Lower-case hex MD5.
pub fn md5_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Md5::digest(bytes).iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
