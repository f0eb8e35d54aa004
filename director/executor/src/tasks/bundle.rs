//! Several blobs as one: a tgz with a file for each. Written as it is read, so that nothing has to be stored in between.
//!
//! The same entries always make the same bytes: a new leader that packs again changes nothing.

use std::io::{self, Cursor, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use model::{BlobDigest, Timestamp};
use release::{BlobError, Blobstore};
use tar::EntryType;
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

/// What goes into an archive.
pub(super) enum Entry {
    /// A folder; its name ends with a slash.
    Folder(String),
    /// A file with this content.
    Text(String, String),
    /// A file whose content is a blob.
    Blob(String, BlobDigest),
}

type Pieces = mpsc::Sender<io::Result<Cursor<Vec<u8>>>>;

/// Returns an error with what led to it.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Stores an archive of these entries.
pub(super) async fn together(
    blobs: &dyn Blobstore,
    entries: &[Entry],
    at: Timestamp,
) -> Result<BlobDigest, BlobError> {
    let (to, mut from) = mpsc::channel(PIECES_AHEAD);
    let mut content = StreamReader::new(futures::stream::poll_fn(move |cx| from.poll_recv(cx)));
    // Owns the reader: once the store takes no more, nobody writes on.
    let storing = async move { blobs.put(&mut content).await };
    let writing = async move {
        if let Err(error) = write(blobs, entries, at, &to).await {
            // Nobody listens: the store has said itself what is wrong.
            let _ = to.send(Err(error)).await;
        }
    };
    let (stored, ()) = tokio::join!(storing, writing);
    Ok(stored?.digest)
}

async fn write(blobs: &dyn Blobstore, entries: &[Entry], at: Timestamp, to: &Pieces) -> io::Result<()> {
    // The parts are compressed already.
    let mut archive = GzEncoder::new(Vec::new(), Compression::none());
    for entry in entries {
        match entry {
            Entry::Folder(name) => archive.write_all(&header(name, EntryType::Directory, 0, at)?)?,
            Entry::Text(name, content) => {
                archive.write_all(&header(name, EntryType::Regular, content.len() as u64, at)?)?;
                archive.write_all(content.as_bytes())?;
                archive.write_all(padding(content.len() as u64))?;
            }
            Entry::Blob(name, digest) => {
                let missing = || io::Error::other(BlobError::NotFound { digest: digest.clone() });
                let bytes = blobs.stat(digest).await.map_err(io::Error::other)?.ok_or_else(missing)?.bytes;
                archive.write_all(&header(name, EntryType::Regular, bytes, at)?)?;
                copy(blobs, (digest, bytes), &mut archive, to).await?;
                archive.write_all(padding(bytes))?;
            }
        }
    }
    archive.write_all(&END)?;
    hand_on(&mut archive.finish()?, to).await
}

/// Copies a blob of so many bytes.
async fn copy(
    blobs: &dyn Blobstore,
    (digest, bytes): (&BlobDigest, u64),
    archive: &mut GzEncoder<Vec<u8>>,
    to: &Pieces,
) -> io::Result<()> {
    let mut reader = blobs.get(digest).await.map_err(io::Error::other)?;
    let mut piece = vec![0; PIECE_BYTES];
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
    Ok(())
}

/// Returns what fills the last block of a content.
fn padding(bytes: u64) -> &'static [u8] {
    &END[..(bytes.next_multiple_of(BLOCK_BYTES) - bytes) as usize]
}

/// Passes on what the encoder has ready.
async fn hand_on(ready: &mut Vec<u8>, to: &Pieces) -> io::Result<()> {
    if ready.is_empty() {
        return Ok(());
    }
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    to.send(Ok(Cursor::new(std::mem::take(ready)))).await.map_err(gone)
}

/// Returns what stands before an entry's content: more than one block, if the name is long. A name is written as it is: the
/// library would drop the `./` that BOSH's archives have.
fn header(name: &str, kind: EntryType, bytes: u64, at: Timestamp) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_mtime(at.seconds().try_into().unwrap_or_default());
    let field = &mut header.as_old_mut().name;
    if name.len() <= field.len() {
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        return Ok(header.as_bytes().to_vec());
    }
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
            parts.push((format!("./{}{number}.tgz", "long".repeat(number * 30)), digest));
        }
        let blob = |(name, digest): &(String, BlobDigest)| Entry::Blob(name.clone(), digest.clone());
        let mut entries: Vec<Entry> = parts.iter().map(blob).collect();
        entries.push(Entry::Folder("./folder/".into()));
        entries.push(Entry::Text("./folder/text".into(), "text".into()));
        let archive = together(&blobs, &entries, Timestamp(9_000)).await.unwrap();
        let packed = content(&blobs, &archive).await;
        let mut tar = tar::Archive::new(GzDecoder::new(packed.as_slice()));
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut body = Vec::new();
            entry.read_to_end(&mut body).unwrap();
            found.push((String::from_utf8(entry.path_bytes().into_owned()).unwrap(), body));
        }
        assert_eq!(found.len(), entries.len());
        for ((name, digest), (found, body)) in parts.iter().zip(&found) {
            assert_eq!((name, &content(&blobs, digest).await), (found, body));
        }
        let others = [("./folder/".to_owned(), vec![]), ("./folder/text".to_owned(), b"text".to_vec())];
        assert_eq!(found[parts.len()..], others);
        assert_eq!(together(&blobs, &entries, Timestamp(9_000)).await.unwrap(), archive, "twice is once");
    }

    #[tokio::test]
    async fn a_part_that_is_not_there_leaves_no_archive() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(dir.path()).unwrap();
        let entries = [Entry::Blob("a.tgz".to_owned(), BlobDigest::new("a".repeat(64)))];
        assert!(together(&blobs, &entries, Timestamp(0)).await.is_err());
        assert!(blobs.list().await.unwrap().is_empty());
    }
}
