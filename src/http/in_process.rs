//! The admin API for whoever has the database open anyway: the same routes, so the same validation, errors and shapes, but
//! without a socket, a token or a rate limit. Absent: who may use it so (see `app::admin`).

use super::{admin::api, state::AppState};
use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, StatusCode},
};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::{convert::Infallible, sync::Arc};

/// The admin API of this process.
pub struct AdminApi(TowerToHyperService<Router>);

impl AdminApi {
    pub fn new(app: AppState) -> Self {
        Self(TowerToHyperService::new(
            api::Admins::routes().with_state(Arc::new(app)),
        ))
    }

    /// Answers one request. Fails if the answer breaks off: a long one is still read from the database while it is sent.
    pub async fn call(&self, request: Request<Body>) -> Result<(StatusCode, Bytes), axum::Error> {
        let response = match self.0.call(request).await {
            Ok(response) => response,
            Err(never) => {
                let never: Infallible = never;
                match never {}
            }
        };
        let (head, body) = response.into_parts();
        Ok((head.status, axum::body::to_bytes(body, usize::MAX).await?))
    }
}
