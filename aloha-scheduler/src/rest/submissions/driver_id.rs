//! The ids that Spark's clients look for: `driver-20190311221731-0000` is the application `app-20190311221731-0000`.
//!
//! Clients of Spark find the id of what they submitted by its first word, so whatever comes in Spark's form is answered
//! with such an id. It is the same application under both, and either is taken wherever an id is asked for.

use super::create::Dialect;
use crate::ids::AppId;

const DRIVER: &str = "driver-";
const APP: &str = "app-";

/// The application that a client means; none if no application can have such an id.
pub(super) fn app_of(id: &str) -> Option<AppId> {
    AppId::of_user(id).ok()
}

/// The id of an application for a client of Spark.
pub(super) fn driver_id(app: &AppId) -> String {
    match app.as_str().strip_prefix(APP) {
        Some(rest) => format!("{DRIVER}{rest}"),
        None => app.to_string(),
    }
}

/// In whose words a client speaks that asks for this id.
pub(super) fn dialect_of(id: &str) -> Dialect {
    if id.starts_with(DRIVER) {
        Dialect::Spark
    } else {
        Dialect::Aloha
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_goes_by_both_ids() {
        let app: AppId = "app-20190311221731-0000".parse().expect("an id");
        let driver = driver_id(&app);
        assert_eq!(driver, "driver-20190311221731-0000");
        assert_eq!(dialect_of(&driver), Dialect::Spark);
        assert_eq!(dialect_of(app.as_str()), Dialect::Aloha);
        for id in [&*driver, app.as_str()] {
            assert_eq!(app_of(id), Some(app.clone()));
        }
    }

    #[test]
    fn what_could_leave_a_directory_is_no_id_in_either_form() {
        for id in ["", "..", "driver-../x", "driver-a/b", "app-a\0"] {
            assert_eq!(app_of(id), None, "{id:?}");
        }
    }
}
