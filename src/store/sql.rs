//! SQL for two databases, written once as PostgreSQL reads it: row locks and all. What SQLite reads instead is made by the
//! compiler: it has the whole file locked, so the locks go, and `rows($1)` becomes its own function.
//!
//! A statement for any number of rows takes them as one JSON argument, and selects from the `ROWS` of their type (see
//! `row!`): the text stays the same, so it stays prepared.

use crate::domain::id::{AlertId, AttemptNo, DeliveryId};
use serde::Serialize;

/// A statement in the words of either database.
#[derive(Clone, Copy)]
pub struct Sql {
    pub postgres: &'static str,
    pub sqlite: &'static str,
    /// The same as one of several in a text, where SQLite's arguments are counted through; `None` if it names an argument
    /// twice, not in order, or more than four.
    pub sqlite_queued: Option<&'static str>,
}

/// Makes a [`Sql`] out of literals and constants.
macro_rules! sql {
    ($($part:expr),+ $(,)?) => {{
        const TEXT: &str = const_format::concatcp!($($part),+);
        const SKIPPING: &str = const_format::str_replace!(TEXT, " skip locked", "");
        const UNLOCKED: &str = const_format::str_replace!(
            const_format::str_replace!(
                const_format::str_replace!(SKIPPING, " for update of d", ""),
                " for no key update", ""
            ),
            " for update", ""
        );
        const SQLITE: &str = const_format::str_replace!(UNLOCKED, "rows($1) as r", "jsonb_each($1) as r");
        $crate::store::sql::Sql {
            postgres: const_format::str_replace!(
                TEXT, "rows($1) as r", "json_array_elements(cast($1 as json)) as r(value)"
            ),
            sqlite: SQLITE,
            sqlite_queued: if $crate::store::sql::counts_through(SQLITE) {
                Some(const_format::str_replace!(
                    const_format::str_replace!(
                        const_format::str_replace!(const_format::str_replace!(SQLITE, "$1", "?"), "$2", "?"),
                        "$3",
                        "?"
                    ),
                    "$4",
                    "?"
                ))
            } else {
                None
            },
        }
    }};
}
pub(crate) use sql;

/// Whether a text names each of at most four arguments once, and in order.
pub const fn counts_through(text: &str) -> bool {
    let text = text.as_bytes();
    let (mut at, mut next) = (0, b'1');
    while at + 1 < text.len() {
        if text[at] == b'$' {
            let is_longer = at + 2 < text.len() && text[at + 2].is_ascii_digit();
            if text[at + 1] != next || next > b'4' || is_longer {
                return false;
            }
            next += 1;
        }
        at += 1;
    }
    true
}

impl Sql {
    /// A text that is only known at run time, of tables and columns of ours. It is never freed, so this is for commands.
    pub fn leaked(text: String) -> Self {
        let text = text.leak();
        Self {
            postgres: text,
            sqlite: text,
            sqlite_queued: None,
        }
    }
}

/// Declares a row on its way into statements: a struct whose fields have their kinds in SQL, or columns that are made of
/// what the struct has. They travel as an array, which is shorter and faster to read than an object, but nobody has to know
/// their places: `ROWS` names them, to be selected from.
macro_rules! row {
    ($(#[$meta:meta])* $name:ident $(<$life:lifetime>)? { $($field:ident: $type:ty as $kind:ident),+ $(,)? }) => {
        $crate::store::sql::row! {
            $(#[$meta])* $name $(<$life>)? ($($field: $type),+) { $($field: $kind = $field),+ }
        }
    };
    ($(#[$meta:meta])* $name:ident $(<$life:lifetime>)? ($($from:ident: $type:ty),+ $(,)?) {
        $($field:ident: $kind:ident = $value:expr),+ $(,)?
    }) => {
        $(#[$meta])*
        struct $name $(<$life>)? { $($from: $type),+ }

        impl $(<$life>)? $name $(<$life>)? {
            /// The rows of `$1`, as `r`.
            const ROWS: &'static str = $crate::store::sql::row!(
                @columns [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23] [] $($field $kind)+
            );
        }

        impl $(<$life>)? serde::Serialize for $name $(<$life>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeSeq as _;
                let Self { $($from),+ } = self;
                let mut row = serializer.serialize_seq(None)?;
                $(row.serialize_element(&$value)?;)+
                row.end()
            }
        }
    };
    (@columns [$place:literal $($places:literal)*] [$($done:expr),*] $field:ident text $($rest:tt)*) => {
        $crate::store::sql::row!(
            @columns [$($places)*] [$($done,)* concat!("r.value ->> ", $place, " as ", stringify!($field))] $($rest)*
        )
    };
    (@columns [$place:literal $($places:literal)*] [$($done:expr),*] $field:ident number $($rest:tt)*) => {
        $crate::store::sql::row!(
            @columns [$($places)*]
            [$($done,)* concat!("cast(r.value ->> ", $place, " as bigint) as ", stringify!($field))] $($rest)*
        )
    };
    (@columns [$place:literal $($places:literal)*] [$($done:expr),*] $field:ident real $($rest:tt)*) => {
        $crate::store::sql::row!(
            @columns [$($places)*]
            [$($done,)* concat!("cast(r.value ->> ", $place, " as double precision) as ", stringify!($field))] $($rest)*
        )
    };
    (@columns [$($places:literal)*] [$first:expr $(, $done:expr)*]) => {
        const_format::concatcp!("(select ", $first, $(", ", $done,)* " from rows($1) as r) as r")
    };
}
pub(crate) use row;

/// What a statement takes for `$1`, `$2` ….
#[derive(Clone, Debug)]
pub enum Argument {
    Text(Option<String>),
    Number(Option<i64>),
}

/// Arguments of different kinds.
macro_rules! args {
    ($($argument:expr),* $(,)?) => { [$($crate::store::sql::Argument::from($argument)),*] };
}
pub(crate) use args;

macro_rules! argument_from {
    ($($name:ty => |$value:ident| $argument:expr;)+) => {$(
        impl From<$name> for Argument {
            fn from($value: $name) -> Self {
                $argument
            }
        }
    )+};
}

argument_from! {
    Rows => |rows| Self::Text(Some(rows.finish()));
    &str => |text| Self::Text(Some(text.to_owned()));
    String => |text| Self::Text(Some(text));
    &String => |text| Self::Text(Some(text.clone()));
    Option<&str> => |text| Self::Text(text.map(str::to_owned));
    Option<String> => |text| Self::Text(text);
    &Option<String> => |text| Self::Text(text.clone());
    &AlertId => |id| Self::Text(Some(id.to_string()));
    &DeliveryId => |id| Self::Text(Some(id.to_string()));
    AttemptNo => |number| Self::Number(Some(number.0));
    i64 => |number| Self::Number(Some(number));
    Option<i64> => |number| Self::Number(number);
}

/// Rows on their way into a statement.
#[derive(Clone, Default)]
pub struct Rows(Vec<u8>);

impl Rows {
    /// Adds one.
    pub fn push(&mut self, row: &impl Serialize) {
        self.0.push(if self.0.is_empty() { b'[' } else { b',' });
        // Structs of texts and numbers cannot fail; if one did, the statement would refuse its row.
        let _ = serde_json::to_writer(&mut self.0, row);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn finish(mut self) -> String {
        self.0.extend_from_slice(if self.0.is_empty() { b"[]" } else { b"]" });
        // What serde_json writes is UTF-8.
        String::from_utf8(self.0).unwrap_or_default()
    }
}

impl<T: Serialize> FromIterator<T> for Rows {
    fn from_iter<I: IntoIterator<Item = T>>(rows: I) -> Self {
        let mut all = Self::default();
        for row in rows {
            all.push(&row);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_reads_no_locks_and_counts_arguments_where_they_are_queued() {
        const STATEMENT: Sql = sql!(
            "select r.value ->> 'id' from rows($1) as r",
            " where $2 > 0 for update of d"
        );

        assert_eq!(
            STATEMENT.postgres,
            "select r.value ->> 'id' from json_array_elements(cast($1 as json)) as r(value) where $2 > 0 for update of d"
        );
        assert_eq!(
            STATEMENT.sqlite,
            "select r.value ->> 'id' from jsonb_each($1) as r where $2 > 0"
        );
        assert_eq!(
            STATEMENT.sqlite_queued,
            Some("select r.value ->> 'id' from jsonb_each(?) as r where ? > 0")
        );
    }

    #[test]
    fn only_what_names_its_arguments_once_and_in_order_can_be_one_of_several() {
        for (text, counts) in [
            ("select 1", true),
            ("select $1, $2, $3, $4", true),
            ("select $1, $1", false),
            ("select $2, $1", false),
            ("select $1, $2, $3, $4, $5", false),
            ("select $10", false),
        ] {
            assert_eq!(counts_through(text), counts, "{text}");
        }
    }

    #[test]
    fn rows_travel_as_arrays_and_are_selected_by_name() {
        row! { Row<'a> { id: &'a str as text, number: i64 as number, hours: Option<f64> as real } }
        let rows: Rows = [("a", 1, None), ("b\"", 2, Some(1.5))]
            .map(|(id, number, hours)| Row { id, number, hours })
            .into_iter()
            .collect();

        assert_eq!(rows.finish(), r#"[["a",1,null],["b\"",2,1.5]]"#);
        assert_eq!(Rows::default().finish(), "[]");
        assert_eq!(
            Row::ROWS,
            "(select r.value ->> 0 as id, cast(r.value ->> 1 as bigint) as number, \
             cast(r.value ->> 2 as double precision) as hours from rows($1) as r) as r"
        );
    }
}
