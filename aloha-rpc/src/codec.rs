//! Message ↔ bytes: the only place that knows the formats.
//!
//! Decoding is bounded by what was received: a length inside a body can make it fail, never make it reserve
//! much more than came. All bytes of a body must be used.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How an environment encodes messages. Both ends of a connection must use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Codec {
    /// [bincode](https://docs.rs/bincode/2.0.1), its standard configuration with limits.
    #[default]
    Bincode,
    /// [postcard](https://docs.rs/postcard).
    Postcard,
}

/// A message that cannot be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub(crate) String);

impl Codec {
    /// The number that stands in the handshake.
    pub(crate) fn id(self) -> u8 {
        match self {
            Self::Bincode => 1,
            Self::Postcard => 2,
        }
    }

    /// Appends the bytes of `message` to `out`.
    pub(crate) fn encode<T: Serialize + ?Sized>(
        self,
        message: &T,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        match self {
            Self::Bincode => {
                bincode::serde::encode_into_std_write(message, out, bincode::config::standard())
                    .map(|_| ())
                    .map_err(|error| CodecError(error.to_string()))
            }
            Self::Postcard => postcard::to_extend(message, std::mem::take(out))
                .map(|bytes| *out = bytes)
                .map_err(|error| CodecError(error.to_string())),
        }
    }

    /// The message that `bytes` are, all of them.
    pub(crate) fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, CodecError> {
        match self {
            Self::Bincode => decode_bincode(bytes),
            Self::Postcard => {
                let (message, rest) = postcard::take_from_bytes(bytes)
                    .map_err(|error| CodecError(error.to_string()))?;
                all_used(bytes.len() - rest.len(), bytes.len())?;
                Ok(message)
            }
        }
    }

    /// The variant with which the bytes of an enum begin.
    pub(crate) fn variant_of(self, bytes: &[u8]) -> Option<u32> {
        match self {
            Self::Bincode => bincode::serde::decode_from_slice(bytes, bincode::config::standard())
                .ok()
                .map(|(variant, _)| variant),
            Self::Postcard => postcard::take_from_bytes(bytes)
                .ok()
                .map(|(variant, _)| variant),
        }
    }
}

/// bincode takes its limit as a constant: the smallest of a few that is sixteen times the body, for one byte
/// may stand for an integer of sixteen. Very large bodies get less, so that no claim can exhaust a machine.
fn decode_bincode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    use bincode::config::standard;
    use bincode::serde::decode_from_slice;

    let decoded = match bytes.len() {
        0..=0x400 => decode_from_slice(bytes, standard().with_limit::<{ 16 << 10 }>()),
        0x401..=0x1_0000 => decode_from_slice(bytes, standard().with_limit::<{ 1 << 20 }>()),
        0x1_0001..=0x40_0000 => decode_from_slice(bytes, standard().with_limit::<{ 64 << 20 }>()),
        0x40_0001..=0x400_0000 => decode_from_slice(bytes, standard().with_limit::<{ 1 << 30 }>()),
        _ => decode_from_slice(bytes, standard().with_limit::<{ 4 << 30 }>()),
    };
    let (message, used) = decoded.map_err(|error| CodecError(error.to_string()))?;
    all_used(used, bytes.len())?;
    Ok(message)
}

fn all_used(used: usize, length: usize) -> Result<(), CodecError> {
    if used == length {
        return Ok(());
    }
    Err(CodecError(format!(
        "the message ends after {used} of {length} bytes"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    const CODECS: [Codec; 2] = [Codec::Bincode, Codec::Postcard];

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Sample {
        Numbers(Vec<u64>, i128),
        Text { name: String, flag: Option<bool> },
        Bytes(#[serde(with = "serde_bytes_like")] Vec<u8>),
    }

    /// Byte strings, as `serde_bytes` encodes them.
    mod serde_bytes_like {
        use serde::de::Visitor;
        use serde::{Deserializer, Serializer};

        pub(super) fn serialize<S: Serializer>(
            bytes: &[u8],
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(bytes)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Vec<u8>, D::Error> {
            struct Buffer;
            impl Visitor<'_> for Buffer {
                type Value = Vec<u8>;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                    Ok(bytes)
                }
                fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                    Ok(bytes.to_vec())
                }
            }
            deserializer.deserialize_byte_buf(Buffer)
        }
    }

    fn encoded<T: Serialize>(codec: Codec, message: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec.encode(message, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn nine_bytes_that_claim_a_terabyte_are_an_error() {
        let mut claim = vec![0xfd];
        claim.extend_from_slice(&(1_u64 << 40).to_le_bytes());
        assert!(Codec::Bincode.decode::<String>(&claim).is_err());
        assert!(Codec::Bincode.decode::<Vec<u64>>(&claim).is_err());
        let claim = [0xff, 0xff, 0xff, 0xff, 0xff, 0x1f];
        assert!(Codec::Postcard.decode::<String>(&claim).is_err());
        assert!(Codec::Postcard.decode::<Vec<u64>>(&claim).is_err());
    }

    #[test]
    fn a_large_body_that_claims_more_than_a_machine_has_is_an_error() {
        let mut claim = vec![0xfd];
        claim.extend_from_slice(&(1_u64 << 36).to_le_bytes());
        claim.resize(5 << 20, 0);
        assert!(Codec::Bincode.decode::<String>(&claim).is_err());
    }

    #[test]
    fn bytes_behind_the_message_are_an_error() {
        for codec in CODECS {
            let mut bytes = encoded(codec, &7_u8);
            assert_eq!(codec.decode(&bytes), Ok(7_u8));
            bytes.push(0);
            assert_eq!(
                codec.decode::<u8>(&bytes),
                Err(CodecError("the message ends after 1 of 2 bytes".to_owned()))
            );
        }
    }

    #[test]
    fn small_numbers_may_fill_a_message() {
        for codec in CODECS {
            let message = vec![1_u128; 1 << 17];
            assert_eq!(codec.decode(&encoded(codec, &message)), Ok(message));
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(numbers in prop::collection::vec(any::<u64>(), 0..50), big: i128, name: String, flag: Option<bool>, bytes: Vec<u8>) {
            for codec in CODECS {
                for message in [
                    Sample::Numbers(numbers.clone(), big),
                    Sample::Text { name: name.clone(), flag },
                    Sample::Bytes(bytes.clone()),
                ] {
                    prop_assert_eq!(codec.decode::<Sample>(&encoded(codec, &message)), Ok(message));
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for codec in CODECS {
                drop(codec.decode::<Sample>(&bytes));
            }
        }
    }
}
