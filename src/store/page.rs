//! Lists, page by page.

use serde::Serialize;

/// One page of a list, and where the next begins.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The cursor of the next page; `null` on the last one. The `Link` header has the whole address.
    #[schema(required)]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of at most `limit` items out of up to one more, whose presence says that there is a next page.
    pub fn cut(mut items: Vec<T>, limit: i64, cursor: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = items.len() > limit;
        items.truncate(limit);
        Self {
            next: has_more.then(|| items.last().map(cursor)).flatten(),
            items,
        }
    }

    /// The same page of what `show` makes of its items.
    pub fn map<R>(self, show: impl FnMut(T) -> R) -> Page<R> {
        Page {
            items: self.items.into_iter().map(show).collect(),
            next: self.next,
        }
    }
}
