//! The JSON API for admins, one file a subject, each with the shapes of its queries and bodies; what it answers are the
//! views of `store`, whose members bear the contract's names. Here: the routes. Absent: pages.

pub mod alerts;
mod csv_files;
pub mod deliveries;
mod imported_alerts;
pub mod inbound;
pub mod limit;
mod messages;
pub mod opt_out_files;
pub mod opt_outs;
pub mod query;
mod receipts;
pub mod reports;
pub mod sources;
pub mod staff;
pub mod staff_files;
pub mod test_mode;
pub mod webhooks;

use crate::http::endpoints::endpoints;

endpoints! {
    /// What admins may ask for.
    Admins {
        "/v1/alerts": get alerts::list;
        "/v1/alerts/imported": post imported_alerts::import;
        "/v1/alerts/{id}": get alerts::show;
        "/v1/alerts/{id}/acknowledge": post alerts::acknowledge;
        "/v1/alerts/{id}/cancel": post alerts::cancel;
        "/v1/deliveries": get deliveries::list;
        "/v1/deliveries/{id}": get deliveries::show;
        "/v1/deliveries/{id}/cancel": post deliveries::cancel;
        "/v1/deliveries/{id}/resend": post deliveries::resend;
        "/v1/inbound": get inbound::list;
        "/v1/inbound/{id}": get inbound::show;
        "/v1/messages": post messages::send;
        "/v1/opt-outs": get opt_outs::list, post opt_outs::add;
        "/v1/opt-outs.csv": get opt_out_files::export, post opt_out_files::import;
        "/v1/opt-outs/{phone}": get opt_outs::show, delete opt_outs::remove;
        "/v1/staff": get staff::list;
        "/v1/staff.csv": get staff_files::export, post staff_files::import;
        "/v1/staff/{source}/{staff_id}": get staff::show, put staff::put, delete staff::remove;
        "/v1/limit": get limit::show, put limit::set;
        "/v1/sources": get sources::list;
        "/v1/test-mode": get test_mode::show, put test_mode::set;
        "/v1/webhooks": get webhooks::list;
        "/v1/webhooks/{name}": get webhooks::show;
        "/v1/webhooks/{name}/disable": post webhooks::disable;
        "/v1/webhooks/{name}/enable": post webhooks::enable;
        "/v1/webhooks/{name}/replay": post webhooks::replay;
        "/v1/webhooks/{name}/test": post webhooks::test;
        "/v1/receipts/rejected": get receipts::list_rejected;
        "/v1/reports": get reports::list;
        "/v1/reports/{day}": get reports::show, post reports::make;
    }
}
