//! The locks of a worker.

/// How far a worker is locked in, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// Limits on time, memory and output only.
    Limits,
    /// Also another uid, that owns nothing.
    OtherUser,
    /// Also namespaces: no network, no other processes, and a file system that holds nothing but Ruby.
    Contained,
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Limits => "limits",
            Self::OtherUser => "other user",
            Self::Contained => "contained",
        })
    }
}
