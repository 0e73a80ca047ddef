//! Names of things in the system file: one type for each kind, so that a node is never passed where a site is meant.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "shared")] #[schemars(with = "String")] Arc<str>);

        impl $name {
            /// Wraps a text that the system file's validation has accepted (see [`is_valid`]).
            pub fn new(text: impl Into<String>) -> Self {
                Self(Arc::from(text.into()))
            }

            /// The name as it stands in the system file.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        // The derived order and hash are those of the text, so maps can be asked with a plain one.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

/// A name is copied often (into every status, every command) and never changed: copies share one text.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(name: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

names! {
    /// All that one file describes.
    SystemName,
    /// A data centre or room.
    SiteName,
    /// One Linux machine. A database's member is named by the node it runs on.
    NodeName,
    /// One network connection of a site or node (an ISP line, a switch fabric).
    LineName,
    /// A PostgreSQL cluster.
    DatabaseName,
    /// A stateless application.
    ServiceName,
    /// What clients connect to.
    RouteName,
    /// A program that runs once at a time, when it is due or asked for.
    JobName,
}

/// The longest name accepted: names become host names (RFC 1123 label), PostgreSQL identifiers and file names.
pub const MAX_LENGTH: usize = 40;

/// Whether `text` may be a name: lower-case letters, digits and `-`, starting with a letter, not ending in `-`,
/// at most [`MAX_LENGTH`] bytes (an RFC 1123 host label that is also safe in file names and quoted SQL).
pub fn is_valid(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= MAX_LENGTH
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(allowed)
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_labels() {
        for good in ["a", "e1", "orders-rw", "w-2-x"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "1e", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(41)] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
