//! The pages for admins, one file a subject: made on the server, working without JavaScript. What they do, they do by the
//! functions of the API beside them. Absent: any state of their own but sessions.

mod actions;
mod alerts;
mod asked;
mod assets;
mod deliveries;
mod failure;
mod form;
mod inbound;
mod layout;
mod opt_outs;
mod overview;
mod rendering;
mod reports;
mod session;
mod settings;
mod staff;
mod totals;
mod viewer;
mod webhooks;
mod words;

pub use rendering::Pages;

use crate::http::{error::Problem, state::AppState};
use axum::{
    Router,
    middleware::{self, map_response},
    response::Redirect,
    routing::{get, post},
};
use failure::Failure;
use std::sync::Arc;

pub fn routes(app: &Arc<AppState>) -> Router<Arc<AppState>> {
    let guarded = Router::new()
        .route("/admin/", get(overview::show).post(overview::act))
        .route("/admin/alerts", get(alerts::list))
        .route("/admin/alerts/{id}", get(alerts::show).post(alerts::act))
        .route("/admin/deliveries", get(deliveries::list))
        .route("/admin/deliveries/{id}", get(deliveries::show).post(deliveries::act))
        .route("/admin/inbound", get(inbound::list))
        .route("/admin/inbound/{id}", get(inbound::show).post(inbound::act))
        .route("/admin/opt-outs", get(opt_outs::list).post(opt_outs::act))
        .route("/admin/opt-outs/remove", get(opt_outs::confirm_removal))
        .route("/admin/opt-outs.csv", get(opt_outs::export))
        .route("/admin/staff", get(staff::list).post(staff::act))
        .route("/admin/staff/edit", get(staff::edit))
        .route("/admin/staff/remove", get(staff::confirm_removal))
        .route("/admin/staff.csv", get(staff::export))
        .route("/admin/reports", get(reports::list).post(reports::act))
        .route("/admin/reports/{day}", get(reports::show))
        .route("/admin/reports/{day}/csv", get(reports::csv))
        .route("/admin/webhooks", get(webhooks::list))
        .route("/admin/webhooks/{name}", get(webhooks::show).post(webhooks::act))
        .route("/admin/settings", get(settings::show).post(settings::act))
        .route("/admin/logout", post(session::log_out).get(to_overview))
        .route("/admin/{*rest}", get(nothing_here).post(nothing_here))
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), session::guard));
    let open = Router::new()
        .route("/admin/login", get(session::show).post(session::log_in))
        .route("/admin/assets/{name}", get(assets::show));
    guarded
        .merge(open)
        .route_layer(map_response(layout::set_headers))
        .route("/", get(to_overview))
        .route("/admin", get(to_overview))
}

async fn to_overview() -> Redirect {
    Redirect::to("/admin/")
}

async fn nothing_here() -> Failure {
    Problem::not_found("There is no page at this address.").into()
}
