//! What Twilio calls: one extractor reads, checks and hands on the requests, whatever they are for. Its type says over which
//! address they are signed. Absent: what a request says (see the handlers), and what it is checked by (see `webhooks`).

use crate::http::{
    body,
    connections::Connection,
    deadline::now,
    error::{Kind, Problem},
    state::AppState,
    webhooks::{self, Webhook},
};
use axum::{
    Extension, RequestExt,
    extract::{ConnectInfo, FromRequest, RawQuery, Request},
    response::{IntoResponse, Response},
};
use std::{marker::PhantomData, net::SocketAddr, sync::Arc, time::Duration};

/// Who sent it is known only once the body is there, so little is taken, and nothing is read away. Callbacks have a few
/// hundred bytes.
const BODY: body::Limits = body::Limits {
    size: 64 * 1024,
    wait: Duration::from_secs(10),
    drain: 0,
};

/// What a signed request is for.
pub trait Purpose {
    const WEBHOOK: Webhook;
}

/// Status callbacks.
pub enum Status {}

impl Purpose for Status {
    const WEBHOOK: Webhook = Webhook::Status;
}

/// What people text us.
pub enum Inbound {}

impl Purpose for Inbound {
    const WEBHOOK: Webhook = Webhook::Inbound;
}

/// A request that Twilio signed.
pub struct SignedRequest<P> {
    /// As it came, without `?`.
    pub query: String,
    /// The body.
    pub form: Vec<u8>,
    purpose: PhantomData<fn() -> P>,
}

impl<P: Purpose> FromRequest<Arc<AppState>> for SignedRequest<P> {
    type Rejection = Response;

    async fn from_request(mut request: Request, app: &Arc<AppState>) -> Result<Self, Response> {
        let (RawQuery(query), ConnectInfo(peer), Extension(connection)) = request
            .extract_parts::<(RawQuery, ConnectInfo<SocketAddr>, Extension<Connection>)>()
            .await
            .map_err(IntoResponse::into_response)?;
        let query = query.unwrap_or_default();
        let (parts, raw) = request.into_parts();
        let reject = |why: String, body: &[u8], problem: Problem| {
            app.webhooks.rejections.add(P::WEBHOOK, why, body, now());
            let problem = app.rate_limiter.refuse(&parts.headers, peer.ip(), problem);
            problem.into_response()
        };
        let forbidden = || Problem::new(Kind::InvalidSignature, "the signature is missing or not valid");
        if webhooks::signature(&parts.headers).is_empty() {
            let why = "it has no `X-Twilio-Signature` header".to_owned();
            return Err(reject(why, &[], forbidden()));
        }
        let form = connection
            .while_waiting(body::read(raw, BODY))
            .await
            .map_err(|problem| reject(problem.detail().to_owned(), &[], problem))?;
        app.webhooks
            .verify(P::WEBHOOK, &query, &parts.headers, &form)
            .map_err(|why| reject(why, &form, forbidden()))?;
        connection.know_client();
        Ok(Self {
            query,
            form,
            purpose: PhantomData,
        })
    }
}
