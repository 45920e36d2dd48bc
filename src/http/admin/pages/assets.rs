//! The style sheet and the icon, served from the binary under names that change with their content, so that browsers keep
//! them for ever.

use crate::http::error::Problem;
use axum::{
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

struct Asset {
    name: String,
    kind: &'static str,
    text: &'static str,
}

impl Asset {
    fn new(stem: &str, ending: &str, kind: &'static str, text: &'static str) -> Self {
        let digest = Sha256::digest(text);
        let hash: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self {
            name: format!("{stem}.{hash}.{ending}"),
            kind,
            text,
        }
    }
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../../../../templates/admin/admin.css");
    Asset::new("admin", "css", "text/css; charset=utf-8", text)
});
static ICON: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../../../../templates/admin/icon.svg");
    Asset::new("icon", "svg", "image/svg+xml", text)
});

/// Where pages find the style sheet.
pub fn style() -> String {
    format!("/admin/assets/{}", STYLE.name)
}

/// Where pages find the icon.
pub fn icon() -> String {
    format!("/admin/assets/{}", ICON.name)
}

/// `GET /admin/assets/{name}`.
pub async fn show(Path(name): Path<String>) -> Result<Response, Problem> {
    let asset = [&*STYLE, &*ICON].into_iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| Problem::not_found("there is nothing at this address"))?;
    let headers = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, asset.text).into_response())
}
