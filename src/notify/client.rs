//! The HTTP client of endpoints. A stand-in: the guarded one takes its place.

use std::time::Duration;

/// Follows no redirect and retries nothing by itself.
pub fn client(timeout: Duration, _allow_private: bool) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .user_agent(concat!("nightbell/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .timeout(timeout)
        .build()
}
