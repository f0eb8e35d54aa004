//! The tests that a control file demands of a running process.

use std::time::Duration;

use super::monit_file::{MemoryOf, Subject, Test};
use crate::proc;

/// How long a connection test may take.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// Returns whether what a test looks for is so now.
pub(super) async fn is_true(test: &Test, pid: i32) -> bool {
    match &test.subject {
        Subject::MemoryOver { kib, of: MemoryOf::Process } => proc::memory_kib(pid) > *kib,
        Subject::MemoryOver { kib, of: MemoryOf::Tree } => {
            proc::tree(pid).into_iter().map(proc::memory_kib).sum::<u64>() > *kib
        }
        Subject::PortFails(address) => {
            let connect = tokio::net::TcpStream::connect(address);
            !matches!(tokio::time::timeout(CONNECTED_WITHIN, connect).await, Ok(Ok(_)))
        }
        Subject::SocketFails(path) => {
            let connect = tokio::net::UnixStream::connect(path);
            !matches!(tokio::time::timeout(CONNECTED_WITHIN, connect).await, Ok(Ok(_)))
        }
    }
}
