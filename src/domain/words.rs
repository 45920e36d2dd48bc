//! Enums whose variants are words in the database and the API.

/// Declares an enum whose variants are words in the database and the API. The words are `tt`: derives do not read a `literal`
/// that a macro passes on.
macro_rules! words {
    // `word_of` gives the word of one variant as a literal, for `sets!`.
    ($(#[$meta:meta])* $name:ident as $word_of:ident {
        $($(#[$doc:meta])* $variant:ident = $word:tt),+ $(,)?
    }) => {
        macro_rules! $word_of { $(($variant) => { $word };)+ }
        $crate::domain::words::words! { $(#[$meta])* $name { $($(#[$doc])* $variant = $word),+ } }
    };
    ($(#[$meta:meta])* $name:ident {
        $(#[$first_doc:meta])* $first:ident = $first_word:tt
        $(, $(#[$doc:meta])* $variant:ident = $word:tt)* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[allow(dead_code, reason = "the contract's words are all here, also those of modules still to come")]
        pub enum $name {
            $(#[$first_doc])* #[serde(rename = $first_word)] $first
            $(, $(#[$doc])* #[serde(rename = $word)] $variant)*
        }

        #[allow(dead_code, reason = "not every set of words is listed or read back")]
        impl $name {
            /// Every variant, in order.
            pub const ALL: &[Self] = &[Self::$first $(, Self::$variant)*];
            /// All words, as an SQL list.
            pub const KNOWN: &str = concat!("'", $first_word, "'" $(, ", '", $word, "'")*);

            /// The word for it in the database, the API and logs.
            pub const fn as_str(self) -> &'static str {
                match self { Self::$first => $first_word $(, Self::$variant => $word)* }
            }

            /// Reads the word back; `None` for one that this version does not know.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $first_word => Some(Self::$first), $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

/// Declares sets of variants: for each a method that says whether a variant belongs to it, and the same set as an SQL list,
/// like `'pending', 'deferred'`. So that Rust and SQL cannot disagree.
macro_rules! sets {
    ($name:ident by $word_of:ident {
        $($(#[$doc:meta])* $method:ident, $list:ident = $first:ident $(| $rest:ident)*;)+
    }) => {
        impl $name {
            $(
                $(#[$doc])*
                #[allow(dead_code, reason = "some sets are asked for in SQL only")]
                pub const fn $method(self) -> bool { matches!(self, Self::$first $(| Self::$rest)*) }
                $(#[$doc])*
                pub const $list: &str = concat!("'", $word_of!($first), "'" $(, ", '", $word_of!($rest), "'")*);
            )+
        }
    };
}
pub(crate) use sets;
