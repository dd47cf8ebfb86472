//! Version 1: one language, and always an answer.

/// Greets somebody.
pub fn greeting(name: &str) -> String {
    format!("Aloha, {name}")
}
