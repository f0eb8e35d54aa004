//! The one table of status codes: reasons in, gRPC out. Every error of the public API is made here: it carries BOSH's
//! number where there is one, a reason in any case, and where trying again helps, when.

use std::collections::HashMap;
use std::time::Duration;

use model::ErrorCode;
use model::task::TaskError;
use raft::MemberError;
use release::BlobError;
use service::ServiceError;
use state::command::Refusal;
use state::log::LogError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Who our error reasons belong to.
const DOMAIN: &str = "directorate";

/// How soon to ask again when there is no leader: about an election.
const AGAIN: Duration = Duration::from_secs(1);

/// Translates a reason.
pub fn status(error: ServiceError) -> Status {
    let message = error.to_string();
    match error {
        ServiceError::Unauthenticated => unauthenticated(message),
        ServiceError::Forbidden { .. } => {
            build(Code::PermissionDenied, message, ErrorCode::UnauthorizedError)
        }
        ServiceError::Told(told) => of_task_error(&told),
        ServiceError::Refused(refusal) => of_refusal(&refusal, message),
        ServiceError::Log(error) => of_log(&error, message),
        ServiceError::NoState => unavailable(message),
        ServiceError::Busy(_) => {
            let mut details = ErrorDetails::with_retry_info(Some(AGAIN));
            details.set_error_info("Busy", DOMAIN, HashMap::new());
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        ServiceError::Compacted { .. } => build(Code::OutOfRange, message, ErrorCode::BadRequest),
    }
}

/// Translates what the store of blobs said.
pub fn of_blob(error: &BlobError) -> Status {
    let message = chain(error);
    match error {
        BlobError::NotFound { .. } => build(Code::NotFound, message, ErrorCode::ResourceNotFound),
        BlobError::InvalidDigest { .. } | BlobError::ReadContent { .. } => bad_request(message),
        // Without a time to come back: another replica is as full, or soon would be.
        BlobError::NoRoom { .. } => reason(Code::ResourceExhausted, message, "NoRoom"),
        // A damaged copy is gone by now; the next reader gets one from another replica.
        BlobError::Damaged { .. } | BlobError::Store { .. } => unavailable(message),
    }
}

/// Translates why the fleet's membership or its leader could not be changed.
pub fn of_member(error: &MemberError) -> Status {
    let message = error.to_string();
    match error {
        MemberError::NotLeader { .. }
        | MemberError::Stopped
        | MemberError::Timeout { .. }
        | MemberError::Busy => unavailable(message),
        MemberError::UnknownMember(_) => build(Code::NotFound, message, ErrorCode::ResourceNotFound),
        _ => build(Code::FailedPrecondition, message, ErrorCode::ResourceError),
    }
}

/// The request makes no sense.
pub fn bad_request(message: impl Into<String>) -> Status {
    build(Code::InvalidArgument, message.into(), ErrorCode::BadRequest)
}

/// Whoever asks has not proved who they are.
pub fn unauthenticated(message: impl Into<String>) -> Status {
    build(Code::Unauthenticated, message.into(), ErrorCode::UnauthorizedError)
}

/// This replica can't just now; asking again, or elsewhere, helps.
pub fn unavailable(message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_retry_info(Some(AGAIN));
    details.set_error_info("Unavailable", DOMAIN, HashMap::new());
    Status::with_error_details(Code::Unavailable, message, details)
}

/// The caller's time is over. What was asked may have happened.
pub fn late() -> Status {
    reason(Code::DeadlineExceeded, "the time that the caller gave is over".into(), "DeadlineExceeded")
}

/// Something here is broken.
pub fn internal(message: impl Into<String>) -> Status {
    build(Code::Internal, message.into(), ErrorCode::SystemError)
}

fn build(code: Code, message: String, told: ErrorCode) -> Status {
    numbered(code, message, told.name(), told.number())
}

fn numbered(code: Code, message: String, reason: &str, number: u32) -> Status {
    let metadata = HashMap::from([("code".to_owned(), number.to_string())]);
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
}

/// Makes an error that BOSH has no number for.
fn reason(code: Code, message: String, reason: &str) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new()))
}

/// Returns an error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Returns whether an error says that what was named is not there; at both doors.
pub fn is_not_found(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TaskNotFound
            | ErrorCode::ReleaseNotFound
            | ErrorCode::ReleaseVersionNotFound
            | ErrorCode::StemcellNotFound
            | ErrorCode::DeploymentNotFound
            | ErrorCode::InstanceNotFound
            | ErrorCode::JobNotFound
            | ErrorCode::ConfigNotFound
            | ErrorCode::ResourceNotFound
            | ErrorCode::LinkNotFound
    )
}

fn of_task_error(told: &TaskError) -> Status {
    let known = ErrorCode::from_number(told.code);
    let code = match known {
        Some(code) if is_not_found(code) => Code::NotFound,
        Some(ErrorCode::ConfigServerMissingName) => Code::NotFound,
        Some(
            ErrorCode::TaskUnexpectedState
            | ErrorCode::ReleaseInUse
            | ErrorCode::StemcellInUse
            | ErrorCode::LinkProviderNotShared
            | ErrorCode::LinkNotExternal,
        ) => Code::FailedPrecondition,
        Some(ErrorCode::Unknown | ErrorCode::SystemError | ErrorCode::LinkDeleteError) => Code::Internal,
        _ => Code::InvalidArgument,
    };
    numbered(code, told.message.clone(), known.map_or("Unknown", ErrorCode::name), told.code)
}

fn of_refusal(refusal: &Refusal, message: String) -> Status {
    let (code, told) = match refusal {
        Refusal::NotFound { .. } => (Code::NotFound, ErrorCode::ResourceNotFound),
        Refusal::Exists { .. } | Refusal::AlreadyInitialised => {
            (Code::AlreadyExists, ErrorCode::ResourceError)
        }
        Refusal::BadToken | Refusal::AgentKeyTaken { .. } => {
            (Code::Unauthenticated, ErrorCode::UnauthorizedError)
        }
        Refusal::ConfigMoved { .. } => (Code::FailedPrecondition, ErrorCode::ConfigExpectedLatestIdMismatch),
        Refusal::UnknownCommand => (Code::Unimplemented, ErrorCode::SystemError),
        _ => (Code::FailedPrecondition, ErrorCode::ResourceError),
    };
    build(code, message, told)
}

fn of_log(error: &LogError, message: String) -> Status {
    match error {
        LogError::NoLeader(_) | LogError::Stopping => {
            let mut details = ErrorDetails::with_retry_info(Some(AGAIN));
            details.set_error_info("NoLeader", DOMAIN, HashMap::new());
            Status::with_error_details(Code::Unavailable, message, details)
        }
        // Without a time to come back: somebody has to make room.
        LogError::NoRoom => reason(Code::ResourceExhausted, message, "NoRoom"),
        LogError::TooLarge { .. } => bad_request(message),
        LogError::TooOld { .. } => reason(Code::FailedPrecondition, message, "MemberTooOld"),
        LogError::Other(_) => internal(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_bosh_s_name_and_number() {
        let status =
            status(ServiceError::told(ErrorCode::DeploymentNotFound, "Deployment 'x' doesn't exist"));
        assert_eq!(status.code(), Code::NotFound);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["code"].as_str()), ("DeploymentNotFound", "70000"));
    }

    #[test]
    fn without_a_leader_the_client_is_told_when_to_come_back() {
        let status = status(ServiceError::Log(LogError::NoLeader("x".into())));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }

    #[test]
    fn a_full_disk_sends_nobody_to_the_next_replica() {
        let full = of_blob(&BlobError::NoRoom { keep_free: 1 });
        assert_eq!(full.code(), Code::ResourceExhausted);
        assert!(full.get_details_retry_info().is_none());
        assert_eq!(full.get_details_error_info().unwrap().reason, "NoRoom");
    }
}
