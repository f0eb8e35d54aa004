//! Errors of a cloud, with BOSH's type names.

use model::VmCid;
use serde::{Deserialize, Serialize};

/// What kind of failure it was, as far as callers act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpiErrorKind {
    /// The VM could not be created; see [`CpiError::ok_to_retry`].
    VmCreationFailed,
    /// No such VM.
    VmNotFound,
    /// No such disk.
    DiskNotFound,
    /// The disk is not attached there.
    DiskNotAttached,
    /// The cloud has no room for the disk.
    NoDiskSpace,
    /// The method does not exist in this CPI.
    NotImplemented,
    /// The method can't do this.
    NotSupported,
    /// The answer was not one.
    InvalidResponse,
    /// No answer in time: the deed may be done or not.
    TimedOut,
    /// The caller's epoch is over, or its lease has ended.
    Fenced,
    /// Anything else.
    Other,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "CPI error '{type_name}' with message '{message}' in '{method}' CPI method (CPI request ID: '{request_id}')"
)]
pub struct CpiError {
    /// What callers act on.
    pub kind: CpiErrorKind,
    /// The type as it came over the wire (`Bosh::Clouds::VMNotFound`).
    pub type_name: String,
    /// The cloud's own words.
    pub message: String,
    /// The method that failed.
    pub method: &'static str,
    /// The call's request id.
    pub request_id: String,
    /// Whether the cloud thinks that another try may help.
    pub ok_to_retry: bool,
}

impl CpiError {
    /// Makes an error of `kind`, named as BOSH names it.
    pub fn new(kind: CpiErrorKind, method: &'static str, message: impl Into<String>) -> Self {
        let type_name = match kind {
            CpiErrorKind::VmCreationFailed => "Bosh::Clouds::VMCreationFailed",
            CpiErrorKind::VmNotFound => "Bosh::Clouds::VMNotFound",
            CpiErrorKind::DiskNotFound => "Bosh::Clouds::DiskNotFound",
            CpiErrorKind::DiskNotAttached => "Bosh::Clouds::DiskNotAttached",
            CpiErrorKind::NoDiskSpace => "Bosh::Clouds::NoDiskSpace",
            CpiErrorKind::NotImplemented => "Bosh::Clouds::NotImplemented",
            CpiErrorKind::NotSupported => "Bosh::Clouds::NotSupported",
            CpiErrorKind::InvalidResponse => "InvalidResponse",
            CpiErrorKind::TimedOut => "TimedOut",
            CpiErrorKind::Fenced => "Fenced",
            CpiErrorKind::Other => "Bosh::Clouds::CloudError",
        };
        Self {
            kind,
            type_name: type_name.into(),
            message: message.into(),
            method,
            request_id: String::new(),
            ok_to_retry: false,
        }
    }

    /// Marks the error as one that another try may mend.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.ok_to_retry = true;
        self
    }

    /// A VM is there for the agent, with another token than this call brings: a call that was given up has made it, and no
    /// director lets its agent in any more. Whoever tries again looks for it first, and deletes it.
    pub fn made_by_another_call(method: &'static str, cid: &VmCid) -> Self {
        let message = format!("another call has made VM `{cid}` for this agent, with a token that is void");
        Self::new(CpiErrorKind::VmCreationFailed, method, message).retryable()
    }

    /// Names the call that failed.
    #[must_use]
    pub fn for_request(mut self, request_id: &model::RequestId) -> Self {
        // Who called it may have named it already, as its cloud knows it.
        if self.request_id.is_empty() {
            self.request_id = request_id.to_string();
        }
        self
    }
}
