//! Promises that every [`Blobstore`] keeps. An implementation's test file is one line:
//! `release::blobstore_conformance!(|dir| MyStore::for_tests(dir));`

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use model::BlobDigest;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::{BlobError, BlobStat, Blobstore};

/// Makes one test per promise for the store that the closure makes in an empty folder.
#[macro_export]
macro_rules! blobstore_conformance {
    ($make:expr) => {
        $crate::blobstore_conformance!(@each $make;
            content_comes_back_under_its_sha256, an_empty_content_is_a_blob, storing_twice_is_storing_once,
            a_large_content_streams, a_failing_reader_stores_nothing, what_is_not_there_is_not_found,
            deleting_is_idempotent, an_address_cannot_escape);
    };
    (@each $make:expr; $($promise:ident),+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            let dir = tempfile::tempdir().expect("a folder for the test");
            let store = ($make)(dir.path());
            $crate::blobstore::conformance::$promise(&store).await;
        }
    )+};
}

const HELLO_SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

async fn put(store: &dyn Blobstore, mut content: &[u8]) -> BlobStat {
    store.put(&mut content).await.expect("a sound content is stored")
}

async fn read(store: &dyn Blobstore, digest: &BlobDigest) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.get(digest).await.expect("the blob is there").read_to_end(&mut bytes).await.expect("and is sound");
    bytes
}

/// The address is the SHA-256 of the content.
pub async fn content_comes_back_under_its_sha256(store: &dyn Blobstore) {
    let stat = put(store, b"hello").await;
    assert_eq!(stat, BlobStat { digest: HELLO_SHA256.into(), bytes: 5 });
    assert_eq!(read(store, &stat.digest).await, b"hello");
    assert_eq!(store.stat(&stat.digest).await.expect("stat works"), Some(stat.clone()));
    assert!(store.has(&stat.digest).await.expect("has works"));
}

/// Nothing is special about length 0.
pub async fn an_empty_content_is_a_blob(store: &dyn Blobstore) {
    let stat = put(store, b"").await;
    assert_eq!(stat, BlobStat { digest: EMPTY_SHA256.into(), bytes: 0 });
    assert_eq!(read(store, &stat.digest).await, b"");
}

/// Equal contents are one blob, also when they come at the same time.
pub async fn storing_twice_is_storing_once(store: &dyn Blobstore) {
    let (one, two) = tokio::join!(put(store, b"same"), put(store, b"same"));
    assert_eq!(one, two);
    store.delete(&one.digest).await.expect("delete works");
    assert!(!store.has(&one.digest).await.expect("has works"), "one delete is enough");
}

/// Contents may be larger than any buffer.
pub async fn a_large_content_streams(store: &dyn Blobstore) {
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let stat = put(store, &content).await;
    assert_eq!(stat.bytes, content.len() as u64);
    assert!(read(store, &stat.digest).await == content);
}

/// A content that breaks off is not stored, not even the part that came.
pub async fn a_failing_reader_stores_nothing(store: &dyn Blobstore) {
    let mut content = BreaksOff { left: 5 };
    let error = store.put(&mut content).await.expect_err("the content broke off");
    assert!(matches!(error, BlobError::ReadContent { .. }), "{error}");
    assert!(!store.has(&HELLO_SHA256.into()).await.expect("has works"));
}

/// An absent blob is an error to read and a plain "no" to ask about.
pub async fn what_is_not_there_is_not_found(store: &dyn Blobstore) {
    let absent = BlobDigest::from(HELLO_SHA256);
    assert!(matches!(store.get(&absent).await, Err(BlobError::NotFound { .. })));
    assert_eq!(store.stat(&absent).await.expect("stat works"), None);
}

/// Deleting what is gone is no error, and other blobs stay.
pub async fn deleting_is_idempotent(store: &dyn Blobstore) {
    let (gone, stays) = (put(store, b"hello").await, put(store, b"stays").await);
    store.delete(&gone.digest).await.expect("delete works");
    store.delete(&gone.digest).await.expect("a second delete too");
    assert!(matches!(store.get(&gone.digest).await, Err(BlobError::NotFound { .. })));
    assert_eq!(read(store, &stays.digest).await, b"stays");
}

/// Addresses come from outside; one that is not 64 hex digits must not reach a path or an object key.
pub async fn an_address_cannot_escape(store: &dyn Blobstore) {
    for text in ["", "../../etc/passwd", "ab", &HELLO_SHA256.to_uppercase(), &format!("{HELLO_SHA256}/..")] {
        let digest = BlobDigest::from(text);
        assert!(matches!(store.get(&digest).await, Err(BlobError::InvalidDigest { .. })), "{text}");
        assert!(matches!(store.delete(&digest).await, Err(BlobError::InvalidDigest { .. })), "{text}");
    }
}

/// Yields `hello`, then fails.
struct BreaksOff {
    left: usize,
}

impl AsyncRead for BreaksOff {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the upload broke off")));
        }
        buf.put_slice(&b"hello"[5 - self.left..][..1]);
        self.left -= 1;
        Poll::Ready(Ok(()))
    }
}
