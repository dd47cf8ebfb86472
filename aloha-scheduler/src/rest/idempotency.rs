//! The header by which a submission that is sent again is known again.

use axum::http::{HeaderMap, HeaderName};

use super::error::RestError;

/// The header's name.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key.
pub(super) const KEY_CHARS_MAX: usize = 128;

/// The idempotency key of a request, if it has one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, RestError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let is_key = |text: &&str| {
        (1..=KEY_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    // Two of them, and it is anybody's guess which one a proxy in between has seen.
    match (value.to_str().ok().filter(is_key), values.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(RestError::Malformed(format!(
            "the header Idempotency-Key must stand there once and have 1 to {KEY_CHARS_MAX} visible ASCII characters"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn key(values: &[&[u8]]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                IDEMPOTENCY_KEY,
                HeaderValue::from_bytes(value).expect("a header"),
            );
        }
        idempotency_key(&headers).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_one_word_of_visible_characters() {
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[b"a-1!\"~"]), Ok(Some("a-1!\"~".into())));
        assert_eq!(key(&[&[b'x'; 128]]), Ok(Some("x".repeat(128))));
        let expected = "the header Idempotency-Key must stand there once and have 1 to 128 visible ASCII characters";
        for values in [
            &[&b""[..]][..],
            &[b"a b"],
            &[b"a\tb"],
            &[&[b'x'; 129]],
            &[b"\xff"],
            &[b"a", b"a"],
        ] {
            assert_eq!(key(values), Err(expected.to_owned()), "{values:?}");
        }
    }
}
