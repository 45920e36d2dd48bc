//! A problem that becomes a page instead of JSON. Absent: the page (see `layout`), which is made where it is known who asks.

use crate::{http::error::Problem, store::StoreError};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Why a page cannot be shown.
#[derive(Debug)]
pub struct Failure(pub Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

/// An answer without a body, which `session::guard` makes a page of.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.0.status().into_response();
        response.extensions_mut().insert(Arc::new(self.0));
        response
    }
}
