//! What is written comes back, and nothing else does.

use sha2::{Digest as _, Sha256};

use crate::*;

fn header() -> Header {
    Header {
        format: FORMAT,
        cluster_id: "c".into(),
        fleet: "test".into(),
        index: 7,
        term: 2,
        taken_at_unix_ms: 1_700_000_000_000,
        version: "0.1.0".into(),
        feature_level: 2,
        with_blobs: true,
        tables: vec![(1, "counters".into()), (2, "cluster".into())],
    }
}

const BLOB: &[u8] = b"the content of a blob";

fn file() -> Vec<u8> {
    let (mut encoder, mut bytes) = Encoder::begin(header());
    for n in 0..5u8 {
        bytes.extend(encoder.row(&[1 + n % 2, n], &vec![n; usize::from(n) * 3]));
    }
    bytes.extend(encoder.blob(&hex::encode(Sha256::digest(BLOB)), BLOB.len() as u64));
    BLOB.chunks(8).for_each(|piece| bytes.extend(encoder.data(piece)));
    encoder.absent("lost");
    bytes.extend(encoder.end());
    bytes
}

fn items(bytes: &[u8]) -> Result<Vec<Item>, ReadError> {
    let mut reader = Reader::open(bytes)?;
    let mut items = Vec::new();
    while let Some(item) = reader.item()? {
        items.push(item);
    }
    Ok(items)
}

#[test]
fn what_was_written_comes_back() {
    let bytes = file();
    let items = items(&bytes).unwrap();
    assert_eq!(items[3], Item::Row { key: vec![2, 3], value: vec![3; 9] });
    let data: Vec<u8> = items
        .iter()
        .filter_map(|i| if let Item::Data(piece) = i { Some(piece.clone()) } else { None })
        .flatten()
        .collect();
    assert_eq!(data, BLOB);
    let report = verify(bytes.as_slice()).unwrap();
    assert_eq!((report.header, &report.damages), (header(), &vec![]));
    let Counts { rows, blobs, blob_bytes, tables, absent } = report.counts;
    assert_eq!(absent, ["lost"]);
    assert_eq!((rows, blobs, blob_bytes), (5, 1, BLOB.len() as u64));
    assert_eq!((tables["counters"], tables["cluster"]), (3, 2));
    let whole = hex::encode(Sha256::digest(&bytes[..bytes.len() - 32]));
    assert_eq!(report.sha256, Some(whole));
}

#[test]
fn half_a_file_is_no_backup() {
    let bytes = file();
    for cut in 0..bytes.len() {
        assert!(items(&bytes[..cut]).is_err(), "cut at {cut}");
        let sound = verify(&bytes[..cut]).is_ok_and(|report| report.damages.is_empty());
        assert!(!sound, "cut at {cut}");
    }
    let longer = [bytes, vec![0]].concat();
    assert!(items(&longer).is_err());
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = file();
    for place in 0..bytes.len() {
        for bit in [0x01, 0x10, 0x80] {
            let mut damaged = bytes.clone();
            damaged[place] ^= bit;
            assert!(items(&damaged).is_err(), "byte {place}");
            let report = verify(damaged.as_slice());
            assert!(report.is_err() || !report.unwrap().damages.is_empty(), "byte {place}");
        }
    }
}

#[test]
fn damage_is_named_and_reading_goes_on_behind_it() {
    let bytes = file();
    // Into the values of two rows of different tables.
    let mut damaged = bytes.clone();
    let find = |value: &[u8]| bytes.windows(value.len()).position(|w| w == value).unwrap();
    damaged[find(&[3; 9])] ^= 1;
    damaged[find(&[4; 12])] ^= 1;
    let report = verify(damaged.as_slice()).unwrap();
    let names = ["a row of table `cluster`", "a row of table `counters`"];
    assert_eq!(report.damages.len(), 2, "{:?}", report.damages);
    for (damage, name) in report.damages.iter().zip(names) {
        assert!(damage.contains(name) && damage.contains("at byte"), "{damage}");
    }
    assert_eq!((report.counts.rows, report.counts.blobs, report.sha256), (3, 1, None));
    let mut damaged = bytes.clone();
    damaged[find(b"the cont")] ^= 1;
    let report = verify(damaged.as_slice()).unwrap();
    assert!(report.damages[0].contains(&hex::encode(Sha256::digest(BLOB))), "{:?}", report.damages);
}

#[test]
fn records_that_change_places_are_noticed() {
    let (mut encoder, mut bytes) = Encoder::begin(header());
    let rows: Vec<Vec<u8>> = (0..2u8).map(|n| encoder.row(&[1, n], &[n])).collect();
    bytes.extend(rows.iter().rev().flatten());
    bytes.extend(encoder.end());
    assert!(matches!(items(&bytes), Err(ReadError::Whole(_))));
}

#[test]
fn what_a_later_version_wrote_is_refused_by_its_number() {
    let (_, bytes) = Encoder::begin(Header { format: FORMAT + 1, ..header() });
    assert!(matches!(Reader::open(bytes.as_slice()), Err(ReadError::TooNew { found: 2 })));
    assert!(matches!(Reader::open(&b"something else"[..]), Err(ReadError::NotABackup)));
    assert!(matches!(Reader::open(&b""[..]), Err(ReadError::NotABackup)));
}

/// A file of format 1 as it was written: `tests/golden/backup_v1.bin` is never edited.
#[test]
fn reads_format_1() {
    let bytes = include_bytes!("../tests/golden/backup_v1.bin");
    assert_eq!(bytes.as_slice(), file());
    assert_eq!(verify(bytes.as_slice()).unwrap().damages, Vec::<String>::new());
}
