//! `directord restore`: the first replica of a new fleet, out of a backup.
//!
//! The file is read twice. First to its end, for damage, and for what must fit before anything is written: tables, feature
//! level, key. Then into a folder beside the data's place, which gets its name once everything is in it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use backup::{Header, Item, ReadError, Reader};
use model::{BlobDigest, NodeId, Revision};
use raft::disk::{Disk, LocalDisk};
use raft::{Founder, Pair, Position};
use rcgen::KeyPair;
use release::{Blobstore as _, LocalBlobs};
use state::State;
use state::command::{Command, FEATURE_LEVEL};
use state::kv::{Kv as _, MemoryKv};
use state::records::Cluster;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Handle;

use super::alone::{Alone, Fleet, member_of, tell_what_is_next};
use super::init::set_aside_unfinished;
use crate::commands::own_names;
use crate::config::Config;
use crate::files::check_owner;
use crate::fleet::log::now;
use crate::identity::{IdentityFiles, NodeIdentity};
use crate::lock::DataLock;
use crate::secrets::Kek;
use crate::tls::TlsIdentity;
use crate::wire::open_authority;

/// What is read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A backup that has been read to its end and fits.
struct Checked {
    header: Header,
    cluster: Cluster,
    /// The new replica's number.
    node: NodeId,
}

/// Makes this replica the first of a new fleet with what is in a backup.
pub async fn restore(config: &Config, snapshot: &Path) -> anyhow::Result<()> {
    let files = IdentityFiles::new(&config.data_dir);
    anyhow::ensure!(
        !files.exist(),
        "`{}` belongs to a fleet already: a backup is restored into an empty folder",
        config.data_dir.display()
    );
    check_owner(&config.data_dir)?;
    let _lock = DataLock::take(&config.data_dir)?;
    let mut file = File::open(snapshot).with_context(|| format!("open the backup {}", snapshot.display()))?;
    let kek = Kek::load(&config.kek_file).with_context(|| {
        format!(
            "put the fleet's key-encryption key into {}: without it a backup can't be read",
            config.kek_file.display()
        )
    })?;
    let checked = check(&mut file, &kek).with_context(|| format!("restore {}", snapshot.display()))?;
    set_aside_unfinished(&config.data_dir)?;
    let blobs = LocalBlobs::open(config.data_dir.join("blobs")).context("open the store of blobs")?;
    let held = {
        let (config, header, node) = (config.clone(), checked.header.clone(), checked.node);
        let runtime = Handle::current();
        let filled = move || fill(&config, &header, node, file, &blobs, &runtime);
        tokio::task::spawn_blocking(filled).await.context("write the state")??
    };
    become_a_fleet(config, &files, &kek, &checked, held).await
}

/// Reads a backup to its end. Nothing has been written when this fails.
fn check(file: &mut File, kek: &Kek) -> anyhow::Result<Checked> {
    let mut reader = open(file)?;
    let header = reader.header().clone();
    let unknown = state::restore::unknown_tables(&header.tables);
    anyhow::ensure!(
        unknown.is_empty() && header.feature_level <= FEATURE_LEVEL,
        "version {} has taken it, which knows more than this one ({}): use that version",
        header.version,
        if unknown.is_empty() { "feature level".to_owned() } else { unknown.join(", ") }
    );
    let mut first = MemoryKv::new();
    while let Some(item) =
        reader.item().context("it can't be restored: `dctl cluster snapshot verify` tells more")?
    {
        if let Item::Row { key, value } = item
            && state::restore::is_first(&key)
        {
            first.put(key, value);
        }
    }
    let cluster = State::new(&first).cluster().context("no fleet is in it")?;
    open_authority(&cluster, kek).context(
        "the key-encryption key is not the one under which this fleet's secrets are sealed: put that one in its place",
    )?;
    Ok(Checked { header, cluster, node: state::restore::first_member(&first) })
}

fn open(file: &mut File) -> anyhow::Result<Reader<BufReader<&mut File>>> {
    file.seek(SeekFrom::Start(0))?;
    Ok(Reader::open(BufReader::with_capacity(BUFFER_BYTES, file))?)
}

/// Writes the state and the blobs; returns which blobs there are.
fn fill(
    config: &Config,
    header: &Header,
    node: NodeId,
    mut file: File,
    blobs: &LocalBlobs,
    runtime: &Handle,
) -> anyhow::Result<Vec<(BlobDigest, u64)>> {
    let (place, building) = (config.data_dir.join("raft"), config.data_dir.join("raft.restoring"));
    if building.exists() {
        std::fs::remove_dir_all(&building).with_context(|| format!("remove {}", building.display()))?;
    }
    let mut reader = open(&mut file)?;
    let mut blob = None;
    let first = state::restore::first_revision(Revision(header.index));
    let position = Position { index: first.0, term: header.term };
    let rows = Rows { reader: &mut reader, blob: &mut blob };
    let further = state::restore::further_rows(first).into_iter().map(Ok);
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let count = raft::found(&disk, &building, &founder(config, node), position, rows.chain(further))?;
    let held = take_blobs(&mut reader, blob, blobs, runtime)?;
    std::fs::rename(&building, &place).with_context(|| format!("move the state to {}", place.display()))?;
    File::open(&config.data_dir)?.sync_all()?;
    println!(
        "Restored: {count} rows and {} blobs of fleet '{}', as it was at entry {} of term {}.",
        held.len(),
        header.fleet,
        header.index,
        header.term
    );
    Ok(held)
}

fn founder(config: &Config, node: NodeId) -> Founder {
    let term_min = u64::try_from(now().0).unwrap_or_default();
    Founder { node_id: node.0, address: config.peer.advertise.clone(), term_min }
}

/// The rows of a backup, as the new fleet has them; they end where the blobs begin.
struct Rows<'a, R> {
    reader: &'a mut Reader<R>,
    /// The first blob.
    blob: &'a mut Option<(String, u64)>,
}

impl<R: Read> Iterator for Rows<'_, R> {
    type Item = Result<Pair, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.blob.is_none() {
            match self.reader.item() {
                Ok(Some(Item::Row { key, value })) => match state::restore::row((key, value)) {
                    Some(row) => return Some(Ok(row)),
                    None => continue,
                },
                Ok(Some(Item::Blob { digest, size_bytes })) => *self.blob = Some((digest, size_bytes)),
                Ok(Some(Item::Data(_))) => {
                    return Some(Err(ReadError::Whole("content before the first blob")));
                }
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

fn take_blobs<R: Read + Send + Unpin>(
    reader: &mut Reader<R>,
    mut next: Option<(String, u64)>,
    blobs: &LocalBlobs,
    runtime: &Handle,
) -> anyhow::Result<Vec<(BlobDigest, u64)>> {
    let mut held = Vec::new();
    while let Some((digest, size_bytes)) = next.take() {
        let mut content = Content { reader: &mut *reader, piece: Vec::new(), at: 0, left: size_bytes };
        let stored =
            runtime.block_on(blobs.put(&mut content)).with_context(|| format!("store blob {digest}"))?;
        anyhow::ensure!(stored.digest.as_str() == digest, "blob {digest} is damaged");
        held.push((stored.digest, size_bytes));
        match reader.item()? {
            Some(Item::Blob { digest, size_bytes }) => next = Some((digest, size_bytes)),
            None => {}
            Some(_) => anyhow::bail!("something stands behind blob {digest} that is none"),
        }
    }
    Ok(held)
}

/// A blob's content. It is always ready: whoever waits for it has a thread of its own for that.
struct Content<'a, R> {
    reader: &'a mut Reader<R>,
    piece: Vec<u8>,
    /// What of the piece has been taken.
    at: usize,
    /// What comes after the piece.
    left: u64,
}

impl<R: Read + Unpin> AsyncRead for Content<'_, R> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let content = self.get_mut();
        if content.at == content.piece.len() && content.left > 0 {
            match content.reader.item() {
                Ok(Some(Item::Data(piece))) => {
                    content.left = content.left.saturating_sub(piece.len() as u64);
                    (content.piece, content.at) = (piece, 0);
                }
                Ok(_) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let rest = &content.piece[content.at..];
        let taken = rest.len().min(into.remaining());
        into.put_slice(&rest[..taken]);
        content.at += taken;
        Poll::Ready(Ok(()))
    }
}

/// Gives the replica its identity and writes down what the new fleet is.
async fn become_a_fleet(
    config: &Config,
    files: &IdentityFiles,
    kek: &Kek,
    checked: &Checked,
    held: Vec<(BlobDigest, u64)>,
) -> anyhow::Result<()> {
    let node = checked.node;
    let authority = open_authority(&checked.cluster, kek)?;
    let key = KeyPair::generate().context("make this replica's key")?;
    let issued = authority.issue_replica(node, &own_names(config), &key)?;
    let identity = NodeIdentity { cluster_id: checked.cluster.cluster_id.clone(), node, peers: Vec::new() };
    let tls = TlsIdentity::new(&issued.chain_pem, &key.serialize_pem(), authority.certificate_pem())?;
    let alone = Alone::start(config, &identity, Arc::new(tls), Fleet::InTheData).await?;
    let written = async {
        let removed = alone.become_the_only_member(member_of(config, node), "restore").await?;
        for (digest, size_bytes) in held {
            alone.must(Command::BlobHeld { digest, size_bytes, nodes: vec![node] }).await?;
        }
        anyhow::Ok(removed)
    };
    let removed = written.await;
    alone.stop().await;
    let removed = removed?;
    // Last: with the identity there, the folder belongs to a fleet; a crash before leaves `restore` to be run again.
    files.store(&identity, &key.serialize_pem(), &issued.chain_pem, authority.certificate_pem())?;
    println!("Replica {node} '{}' is the first of the new fleet.", config.name);
    tell_what_is_next(&removed);
    Ok(())
}
