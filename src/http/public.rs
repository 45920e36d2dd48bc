//! The endpoints that need no admin token: what helpdesks and providers call, where links in messages lead to, and what load
//! balancers ask.

use super::{endpoints::endpoints, events, health, hooks, links, twilio};

endpoints! {
    /// What helpdesks and providers call, and people by the links in their messages.
    Callers {
        "/v1/events": post events::post;
        "/v1/hooks/{source}": post hooks::post, get hooks::challenge;
        "/a/{token}": get links::show, post links::press;
        "/twilio/inbound": post twilio::inbound::post;
        "/twilio/status": post twilio::receipts::post;
    }
}

endpoints! {
    /// What anybody may ask.
    Probes {
        "/healthz": get health::alive;
        "/readyz": get health::ready;
    }
}
