//! A text that must not be seen: no formatting shows it, and only its digest is kept for comparisons.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use xy_actors::process::settings;

/// The fewest characters of a token that somebody else has made; as random as they should be, they carry 128 bits in
/// hexadecimal digits and more in anything else.
const SHORTEST: usize = 32;

/// The most characters of a token.
const LONGEST: usize = 512;

/// A token in the clear.
///
/// ```
/// use xy_daemon::http::secret::Secret;
///
/// let secret = Secret::parse("0123456789abcdef0123456789abcdef")?;
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// # Ok::<(), xy_daemon::http::secret::SecretError>(())
/// ```
#[derive(Clone)]
pub struct Secret(settings::Secret);

/// Why a text cannot be a token. The text itself is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It is too short or too long.
    #[error("a token has {SHORTEST} to {LONGEST} characters, not {0}")]
    Length(usize),
    /// It holds what cannot stand in a header.
    #[error("a token consists of visible ASCII characters")]
    Characters,
}

impl Secret {
    /// Makes a new token of 256 random bits.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)?;
        Ok(Self(settings::Secret::new(URL_SAFE_NO_PAD.encode(bits))))
    }

    /// Takes a token that somebody else has made; white space around it does not count.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim_ascii();
        if !(SHORTEST..=LONGEST).contains(&text.len()) {
            return Err(SecretError::Length(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretError::Characters);
        }
        Ok(Self(settings::Secret::new(text)))
    }

    /// Returns the token in the clear, for the files that clients read it from.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Returns what tokens are compared by.
    pub fn digest(&self) -> Digest {
        Digest::of(self.expose().as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for Secret {}

/// The SHA-256 of a token.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Computes the digest of what a client has sent, whatever that is.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("a digest has 32 bytes in base64"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

impl PartialEq for Digest {
    /// Compares in a time that does not depend on where the two differ.
    fn eq(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |differing, (a, b)| differing | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl Eq for Digest {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_tokens_have_256_bits_and_differ() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_eq!(URL_SAFE_NO_PAD.decode(one.expose()).unwrap().len(), 32);
        assert_ne!(one, other);
        assert_eq!(Secret::parse(one.expose()), Ok(one));
    }

    #[test]
    fn no_formatting_shows_a_token() {
        let secret = Secret::generate().unwrap();
        let shown = format!("{secret:?} {:?} {:?}", Some(secret.clone()), secret.digest());
        assert!(!shown.contains(secret.expose()), "{shown}");
        assert_eq!(shown, "Secret(..) Some(Secret(..)) Digest(..)");
    }

    #[test]
    fn weak_and_unsendable_tokens_are_refused() {
        assert_eq!(Secret::parse(""), Err(SecretError::Length(0)));
        assert_eq!(Secret::parse(&"x".repeat(31)), Err(SecretError::Length(31)));
        assert_eq!(Secret::parse(&"x".repeat(513)), Err(SecretError::Length(513)));
        assert_eq!(Secret::parse(&"x y".repeat(20)), Err(SecretError::Characters));
        assert_eq!(Secret::parse(&"é".repeat(20)), Err(SecretError::Characters));
        assert!(Secret::parse(&format!(" {}\n", "x".repeat(32))).is_ok());
    }

    #[test]
    fn digests_differ_if_any_bit_does() {
        let digest = Digest::of(b"token");
        for bit in 0..256 {
            let mut other = digest;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest, other);
        }
        assert_eq!(digest, Digest::of(b"token"));
    }
}
