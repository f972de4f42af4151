//! Counters and ids. Each has its own type and offers little more than order and printing.

use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The value after this one. Counters of 64 bits do not run out; a shorter one
            /// that does stays at its maximum, and its user refuses to hand it out twice.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident($inner:ty, $digits:literal)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl $name {
            /// Parses what `Display` prints: exactly that many lower-case hexadecimal digits.
            pub fn parse(text: &str) -> Option<Self> {
                let digits = text.len() == $digits
                    && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if !digits {
                    return None;
                }
                <$inner>::from_str_radix(text, 16).ok().map(Self)
            }
        }
    };
}

counter!(
    /// A commit's position in the log, from 1, without gaps. `Seq(0)` is the empty database.
    Seq(u64)
);
counter!(
    /// Names a table for ever; never reused, also not after `DROP`.
    TableId(u64)
);
counter!(
    /// Names a column of one table for ever; names bind to it per schema version.
    ColumnId(u32)
);
counter!(
    /// Grows by one with every change of a table's schema.
    SchemaId(u32)
);
counter!(
    /// Grows by one at each promotion; fences a former primary.
    Epoch(u64)
);
random_id!(
    /// Random per process start: two processes never share one, whatever their configuration.
    WriterId(u64, 16)
);
random_id!(
    /// Random per commit: how a writer recognises its own commit when an answer was lost.
    CommitId(u128, 32)
);
random_id!(
    /// Random per database: stands in every object header, so that a foreign object is told.
    DatabaseId(u128, 32)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_id_parses_back_and_nothing_else_does() {
        let id = WriterId(0xdead_beef);
        assert_eq!(id.to_string(), "00000000deadbeef");
        assert_eq!(WriterId::parse("00000000deadbeef"), Some(id));
        for wrong in ["deadbeef", "00000000DEADBEEF", "+0000000deadbeef", ""] {
            assert_eq!(WriterId::parse(wrong), None, "{wrong:?}");
        }
    }
}
