//! What goes over the socket: a length of four bytes, then JSON. One question and one answer per connection, so that a
//! connection that closes early is a lost answer and nothing else.

use cpi_api::{Call, CallContext, CpiError, CpiErrorKind};
use model::VmCid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::cloud::Statistics;
use crate::knobs::Knobs;
use crate::record::Record;

/// Longest frame: a snapshot of ten thousand VMs fits.
const FRAME_BYTES_MAX: u32 = 256 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    Call { context: Option<Box<CallContext>>, call: Box<Call> },
    SetKnobs(Box<Knobs>),
    Statistics,
    Record,
    CrashVm(VmCid),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Result(Value),
    Error { kind: CpiErrorKind, type_name: String, message: String, ok_to_retry: bool },
    Statistics(Box<Statistics>),
    Record(Box<Record>),
    Done,
}

impl From<Result<Value, CpiError>> for Answer {
    fn from(outcome: Result<Value, CpiError>) -> Self {
        match outcome {
            Ok(result) => Self::Result(result),
            Err(CpiError { kind, type_name, message, ok_to_retry, .. }) => {
                Self::Error { kind, type_name, message, ok_to_retry }
            }
        }
    }
}

pub(crate) async fn write<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    frame: &T,
) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(frame)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    to.write_u32(length.ok_or_else(|| std::io::Error::other("the frame is too long"))?).await?;
    to.write_all(&bytes).await?;
    to.flush().await
}

pub(crate) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<T> {
    let length = from.read_u32().await?;
    if length > FRAME_BYTES_MAX {
        return Err(std::io::Error::other("the frame is too long"));
    }
    // Grows with what really comes: a length alone takes no memory.
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}
