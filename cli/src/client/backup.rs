//! A backup of the fleet, streamed into a file.

use std::io::{Seek as _, SeekFrom, Write as _};

use proto::v1::SaveSnapshotRequest;
use proto::v1::cluster_client::ClusterClient;

use super::{Fleet, Kind, failure, refused};
use crate::error::Error;

const OPERATION: &str = "ClusterClient.save_snapshot";

impl Fleet {
    /// Writes a backup into `file`, from its beginning. A stream that breaks is begun anew elsewhere: what another replica
    /// would send is another backup.
    pub async fn save_snapshot(
        &self,
        request: SaveSnapshotRequest,
        file: &mut std::fs::File,
        progress: impl Fn(u64),
    ) -> Result<(), Error> {
        let mut patience = self.patience().reopening();
        loop {
            let open = self
                .open(OPERATION, async |link| ClusterClient::new(link).save_snapshot(request.clone()).await);
            let mut stream = open.await?;
            patience.opened();
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            let mut written = 0;
            let broken = loop {
                match stream.message().await {
                    Ok(Some(part)) => {
                        file.write_all(&part.data)?;
                        written += part.data.len() as u64;
                        progress(written);
                    }
                    Ok(None) => return Ok(()),
                    Err(status) => break status,
                }
            };
            if failure::kind(&broken) == Kind::Final {
                return Err(refused(OPERATION, &broken));
            }
            let Some(pause) = patience.broken() else { return Err(self.lost(OPERATION, &broken)) };
            self.move_on();
            tokio::time::sleep(pause).await;
        }
    }
}
