//! Several blobs as one: a tgz with a file for each. Written as it is read, so that nothing has to be stored in between.

use std::io::{self, Cursor, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use model::{BlobDigest, Timestamp};
use release::{BlobError, Blobstore};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

/// Bytes read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces ahead of a store that is slow.
const PIECES_AHEAD: usize = 4;

/// The end of an archive.
const END: [u8; 1024] = [0; 1024];

/// What tar counts in.
const BLOCK_BYTES: u64 = 512;

type Pieces = mpsc::Sender<io::Result<Cursor<Vec<u8>>>>;

/// Stores an archive of blobs, each under its name; the same ones always make the same archive.
pub(super) async fn together(
    blobs: &dyn Blobstore,
    parts: &[(String, BlobDigest)],
    at: Timestamp,
) -> Result<BlobDigest, BlobError> {
    let (to, mut from) = mpsc::channel(PIECES_AHEAD);
    let mut content = StreamReader::new(futures::stream::poll_fn(move |cx| from.poll_recv(cx)));
    // Owns the reader: once the store takes no more, nobody writes on.
    let storing = async move { blobs.put(&mut content).await };
    let writing = async move {
        if let Err(error) = write(blobs, parts, at, &to).await {
            // Nobody listens: the store has said itself what is wrong.
            let _ = to.send(Err(error)).await;
        }
    };
    let (stored, ()) = tokio::join!(storing, writing);
    Ok(stored?.digest)
}

async fn write(
    blobs: &dyn Blobstore,
    parts: &[(String, BlobDigest)],
    at: Timestamp,
    to: &Pieces,
) -> io::Result<()> {
    // The parts are compressed already.
    let mut archive = GzEncoder::new(Vec::new(), Compression::none());
    let mut piece = vec![0; PIECE_BYTES];
    for (name, digest) in parts {
        let missing = || io::Error::other(BlobError::NotFound { digest: digest.clone() });
        let bytes = blobs.stat(digest).await.map_err(io::Error::other)?.ok_or_else(missing)?.bytes;
        archive.write_all(&header(name, bytes, at)?)?;
        let mut reader = blobs.get(digest).await.map_err(io::Error::other)?;
        let mut written = 0;
        loop {
            let count = reader.read(&mut piece).await?;
            if count == 0 {
                break;
            }
            written += count as u64;
            archive.write_all(&piece[..count])?;
            hand_on(archive.get_mut(), to).await?;
        }
        if written != bytes {
            return Err(io::Error::other(format!("blob {digest} has {written} bytes instead of {bytes}")));
        }
        let padding = bytes.next_multiple_of(BLOCK_BYTES) - bytes;
        archive.write_all(&END[..padding as usize])?;
    }
    archive.write_all(&END)?;
    hand_on(&mut archive.finish()?, to).await
}

/// Passes on what the encoder has ready.
async fn hand_on(ready: &mut Vec<u8>, to: &Pieces) -> io::Result<()> {
    if ready.is_empty() {
        return Ok(());
    }
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    to.send(Ok(Cursor::new(std::mem::take(ready)))).await.map_err(gone)
}

/// Returns what stands before a file's content: more than one block, if the name is long.
fn header(name: &str, bytes: u64, at: Timestamp) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(at.seconds().try_into().unwrap_or_default());
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, name, io::empty())?;
    Ok(std::mem::take(builder.get_mut()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use release::LocalBlobs;

    use super::*;

    async fn content(blobs: &LocalBlobs, digest: &BlobDigest) -> Vec<u8> {
        let mut content = Vec::new();
        blobs.get(digest).await.unwrap().read_to_end(&mut content).await.unwrap();
        content
    }

    #[tokio::test]
    async fn an_archive_has_each_blob_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(dir.path()).unwrap();
        let mut parts = Vec::new();
        for (number, bytes) in [0, 1, 511, 512, 513, 300_000].into_iter().enumerate() {
            let body: Vec<u8> = (0..bytes).map(|at| (at * 7 + number) as u8).collect();
            let digest = blobs.put(&mut body.as_slice()).await.unwrap().digest;
            parts.push((format!("{}{number}.tgz", "long".repeat(number * 30)), digest));
        }
        let archive = together(&blobs, &parts, Timestamp(9_000)).await.unwrap();
        let packed = content(&blobs, &archive).await;
        let mut tar = tar::Archive::new(GzDecoder::new(packed.as_slice()));
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut body = Vec::new();
            entry.read_to_end(&mut body).unwrap();
            found.push((entry.path().unwrap().display().to_string(), body));
        }
        assert_eq!(found.len(), parts.len());
        for ((name, digest), (found, body)) in parts.iter().zip(&found) {
            assert_eq!((name, &content(&blobs, digest).await), (found, body));
        }
        assert_eq!(together(&blobs, &parts, Timestamp(9_000)).await.unwrap(), archive, "twice is once");
    }

    #[tokio::test]
    async fn a_part_that_is_not_there_leaves_no_archive() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(dir.path()).unwrap();
        let parts = [("a.tgz".to_owned(), BlobDigest::new("a".repeat(64)))];
        assert!(together(&blobs, &parts, Timestamp(0)).await.is_err());
        assert!(blobs.list().await.unwrap().is_empty());
    }
}
