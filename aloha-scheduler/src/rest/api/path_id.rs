//! The id in a path.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::problem::ApiError;
use crate::ids::{AppId, IdError, WorkerId};
use crate::rest::gateway::GatewayError;

/// The id in a path. A text that is none names nothing that there is: the answer is 404, as for any other.
#[derive(Debug)]
pub(super) struct PathId<T>(pub(super) T);

/// What has an id.
pub(super) trait Identified: Sized {
    /// Its name in messages.
    const NAME: &'static str;

    /// Reads an id as users give it.
    fn of_user(text: &str) -> Result<Self, IdError>;
}

impl Identified for AppId {
    const NAME: &'static str = "application";

    fn of_user(text: &str) -> Result<Self, IdError> {
        Self::of_user(text)
    }
}

impl Identified for WorkerId {
    const NAME: &'static str = "worker";

    fn of_user(text: &str) -> Result<Self, IdError> {
        text.parse()
    }
}

impl<T: Identified, S: Send + Sync> FromRequestParts<S> for PathId<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Ok(Path(text)) = Path::<String>::from_request_parts(parts, state).await else {
            return Err(no_such::<T>("whose id is no UTF-8"));
        };
        // Quoted, for it may be anything.
        let no_id = |_| no_such::<T>(&format!("{text:?}"));
        T::of_user(&text).map(Self).map_err(no_id)
    }
}

/// The error for an id that nothing has.
pub(super) fn no_such<T: Identified>(id: &str) -> ApiError {
    let reason = format!("there is no {} {id}", T::NAME);
    GatewayError::NotFound { reason }.into()
}
