//! Version 2: languages, some of which it does not have.

/// Greets somebody in a language, if it has that.
pub fn greeting(name: &str, language: &str) -> Option<String> {
    match language {
        "haw" => Some(format!("Aloha e {name}")),
        "en" => Some(format!("Hello, {name}")),
        _ => None,
    }
}
