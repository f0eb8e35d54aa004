//! Files of chance: uploaded, and read back now and then, from whichever replica.

use std::time::Duration;

use anyhow::Result;
use dctl::error::Error;
use proto::v1::UploadBlobRequest;
use proto::v1::blobs_client::BlobsClient;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _};

use super::Ground;
use crate::client::Client;

/// Pause between uploads: each is synced to a majority of disks.
const PAUSE: Duration = Duration::from_millis(300);

/// Largest file: several messages, and some of a small disk.
const BYTES_MAX: usize = 256 * 1024;

/// Bytes of a message.
const PART_BYTES: usize = 64 * 1024;

/// Most files: what is uploaded stays there.
const FILES_MAX: usize = 40;

/// An upload that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Under which digest.
    pub digest: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Uploads one file after the other.
pub(super) async fn upload(ground: &Ground, number: usize) -> Result<()> {
    let client = ground.patient(number)?;
    let mut chance = ground.chance(3, number);
    let mut own: Vec<Blob> = Vec::new();
    while !ground.is_over() && own.len() < FILES_MAX {
        let mut bytes = vec![0; chance.random_range(1..=BYTES_MAX)];
        chance.fill_bytes(&mut bytes);
        match send(&client, &bytes).await {
            Ok(digest) => {
                let blob = Blob { digest, bytes };
                ground.notes().blobs.push(blob.clone());
                own.push(blob);
            }
            // A full disk is a good reason; any other is told as well.
            Err(Error::Refused { status: tonic::Code::ResourceExhausted, .. }) => {}
            Err(error) => ground.notes().unanswered.push(format!("upload: {error:#}")),
        }
        client.fleet.move_on();
        read_one_back(ground, &client, &own, &mut chance).await;
        ground.pause(PAUSE).await;
    }
    Ok(())
}

async fn send(client: &Client, bytes: &[u8]) -> Result<String, Error> {
    let open = client.fleet.open("BlobsClient.upload", async |link| {
        let parts: Vec<UploadBlobRequest> =
            bytes.chunks(PART_BYTES).map(|part| UploadBlobRequest { data: part.to_vec().into() }).collect();
        BlobsClient::new(link).upload(tokio_stream::iter(parts)).await
    });
    Ok(open.await?.digest)
}

async fn read_one_back(ground: &Ground, client: &Client, own: &[Blob], chance: &mut StdRng) {
    let Some(blob) = own.get(chance.random_range(0..own.len().max(1))) else { return };
    let mut bytes = Vec::new();
    match client.fleet.download(&blob.digest, &mut bytes).await {
        Ok(_) if bytes != blob.bytes => {
            ground.notes().damaged.push(format!("blob {} came back as something else", blob.digest));
        }
        // The client compares digests itself.
        Err(Error::Protocol(message)) => ground.notes().damaged.push(message),
        Err(Error::Refused { status: tonic::Code::NotFound, message, .. }) => {
            ground.notes().damaged.push(format!("blob {} was acknowledged: {message}", blob.digest));
        }
        Ok(_) | Err(_) => {}
    }
}
