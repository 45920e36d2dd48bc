//! Routes and their documentation out of one list, so that no route can be missing from `/openapi.json`. The document is
//! made only when it is asked for.

/// Declares a group of endpoints. Each handler bears `#[utoipa::path]`; a test compares method and path.
macro_rules! endpoints {
    ($(#[$doc:meta])* $group:ident {
        $($path:literal: $($method:ident $($handler:ident)::+),+;)+
    }) => {
        $(#[$doc])*
        #[derive(utoipa::OpenApi)]
        #[openapi(paths($($($($handler)::+),+),+))]
        pub enum $group {}

        impl $group {
            pub fn routes() -> axum::Router<std::sync::Arc<$crate::http::state::AppState>> {
                axum::Router::new()
                    $(.route($path, axum::routing::MethodRouter::new()$(.$method($($handler)::+))+))+
            }

            /// Method and path of every route.
            #[cfg(test)]
            pub const ROUTES: &[(&str, &str)] = &[$($((stringify!($method), $path)),+),+];
        }
    };
}
pub(in crate::http) use endpoints;
