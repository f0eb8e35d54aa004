//! What a failed call says: whether another replica may do better, and what to tell the operator.

use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::error::{self, Error};

/// Whether it is worth asking another replica, or this one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This replica cannot just now.
    Elsewhere,
    /// This is the fleet's answer.
    Final,
}

/// Sorts a failure. What our own side of the connection made up (no route, reset, broken stream) carries a source; what
/// a server answered does not.
pub fn kind(status: &Status) -> Kind {
    let ours = status.source().is_some();
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => Kind::Elsewhere,
        // Busy: only if the server says that waiting helps.
        Code::ResourceExhausted | Code::Aborted if asked_pause(status).is_some() => Kind::Elsewhere,
        Code::Unknown | Code::Internal | Code::Cancelled if ours => Kind::Elsewhere,
        _ => Kind::Final,
    }
}

/// Returns the pause that the server asked for.
pub fn asked_pause(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// Returns why a replica did not help, in one line.
pub fn cause(status: &Status) -> String {
    match status.source() {
        // The outer texts ("transport error") say less than the innermost one ("Connection refused").
        Some(source) => {
            let mut inner = source;
            while let Some(deeper) = inner.source() {
                inner = deeper;
            }
            inner.to_string()
        }
        None => status.message().to_owned(),
    }
}

/// Turns an answer that is final into our error.
pub fn refused(operation: &'static str, status: &Status) -> Error {
    let info = status.get_details_error_info();
    let number = info.as_ref().and_then(|info| info.metadata.get("code")?.parse().ok());
    let code = info.filter(|info| info.domain == "directorate").and_then(|info| Some((number?, info.reason)));
    let message = match status.message() {
        "" => format!("{operation}: {}", status.code().description()),
        message => message.to_owned(),
    };
    match status.code() {
        Code::Unauthenticated => Error::NotLoggedIn(message),
        Code::PermissionDenied => Error::NotAllowed(message),
        Code::Unimplemented => Error::Refused {
            operation,
            code: None,
            status: status.code(),
            message: format!("this director does not know `{operation}`: is it older than this dctl?"),
        },
        status_code => {
            let message = match status.source() {
                Some(source) => format!("{message}: {}", error::chain(source)),
                None => message,
            };
            Error::Refused { operation, code, status: status_code, message }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn an_election_sends_us_elsewhere_and_a_refusal_does_not() {
        assert_eq!(kind(&Status::unavailable("no leader")), Kind::Elsewhere);
        assert_eq!(kind(&Status::deadline_exceeded("")), Kind::Elsewhere);
        assert_eq!(kind(&Status::not_found("task 9")), Kind::Final);
        assert_eq!(kind(&Status::internal("a bug")), Kind::Final, "the next replica has the same bug");
        assert_eq!(kind(&Status::resource_exhausted("full")), Kind::Final);
    }

    #[test]
    fn our_own_broken_connection_sends_us_elsewhere() {
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        assert_eq!(kind(&broken), Kind::Elsewhere);
        assert_eq!(cause(&broken), "connection reset");
    }

    #[test]
    fn busy_is_worth_a_pause_only_if_the_server_says_so() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(250)));
        let status = Status::with_error_details(Code::ResourceExhausted, "too many", details);
        assert_eq!(
            (kind(&status), asked_pause(&status)),
            (Kind::Elsewhere, Some(Duration::from_millis(250)))
        );
    }

    #[test]
    fn boshs_number_and_name_are_read_from_the_details() {
        let metadata = HashMap::from([("code".to_owned(), "10000".to_owned())]);
        let details = ErrorDetails::with_error_info("TaskNotFound", "directorate", metadata);
        let status = Status::with_error_details(Code::NotFound, "Task 9 not found", details);
        match refused("TasksClient.get", &status) {
            Error::Refused { code, message, .. } => {
                assert_eq!(code, Some((10000, "TaskNotFound".into())));
                assert_eq!(message, "Task 9 not found");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rights_have_their_own_errors() {
        assert!(matches!(refused("x", &Status::unauthenticated("no")), Error::NotLoggedIn(_)));
        assert!(matches!(refused("x", &Status::permission_denied("no")), Error::NotAllowed(_)));
    }
}
