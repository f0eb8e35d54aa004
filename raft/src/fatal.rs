//! The way out when this replica can no longer keep its promises.

use std::fmt::Display;

use crate::OnFatal;

/// Ends the process through the owner's hook.
///
/// After a failed fsync nobody knows what is on the disk: the kernel may have dropped the dirty pages, and the next
/// fsync would succeed without them. So a failure of a database is never retried and never reported as an ordinary error.
#[derive(Clone)]
pub(crate) struct Fatal {
    hook: OnFatal,
}

impl Fatal {
    pub(crate) fn new(hook: OnFatal) -> Self {
        Self { hook }
    }

    /// Calls the hook and returns what to answer if the hook returned, as only tests make it do.
    pub(crate) fn report(&self, operation: &str, error: impl Display) -> std::io::Error {
        let message = format!("{operation} failed: {error}");
        (self.hook)(&message);
        std::io::Error::other(message)
    }

    /// Returns what was read, or stops.
    pub(crate) fn or_stop<T>(&self, operation: &str, read: Result<T, impl Display>) -> T {
        read.unwrap_or_else(|error| self.stop(operation, error))
    }

    /// Calls the hook; does not return.
    pub(crate) fn stop(&self, operation: &str, error: impl Display) -> ! {
        let error = self.report(operation, error);
        panic!("{error}");
    }
}
