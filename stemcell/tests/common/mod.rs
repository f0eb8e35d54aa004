//! A stemcell of the format `tar` whose root file system is none of Debian's, made in no time.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]
#![allow(dead_code, reason = "each test file is a crate of its own and uses what it needs")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::EntryType;

/// Rights as the kernel writes them down: to bind low ports.
pub const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An entry: path, kind, mode, owner, content or target.
pub type Row<'a> = (&'a str, EntryType, u32, u64, &'a [u8]);

/// Adds entries to an archive.
fn add(archive: &mut tar::Builder<impl std::io::Write>, rows: &[Row<'_>]) {
    for (path, kind, mode, owner, content) in rows {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1_600_000_000);
        header.set_size(0);
        match kind {
            EntryType::Regular => {
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, path, *content).unwrap();
            }
            EntryType::Directory => archive.append_data(&mut header, path, std::io::empty()).unwrap(),
            _ => archive.append_link(&mut header, path, std::str::from_utf8(content).unwrap()).unwrap(),
        }
    }
}

/// Writes a stemcell of the format `tar`.
pub fn write_stemcell(out: &Path, more: &[Row<'_>]) {
    use EntryType::{Directory, Link, Regular, Symlink};
    let mut root = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let folders =
        ["", "boot", "boot/grub", "boot/grub/i386-pc", "usr", "usr/bin", "usr/lib", "usr/lib/modules", "var"];
    let rows = folders.map(|path| format!("./{path}"));
    add(&mut root, &rows.each_ref().map(|path| (path.as_str(), Directory, 0o755, 0, &b""[..])));
    root.append_pax_extensions([("SCHILY.xattr.security.capability", CAPABILITY)]).unwrap();
    add(&mut root, &[("./usr/bin/low port", Regular, 0o755, 0, b"program")]);
    let agent = "{\"Infrastructure\": \"none\"}";
    add(
        &mut root,
        &[
            ("./bin", Symlink, 0o777, 0, b"usr/bin"),
            ("./boot/grub/i386-pc/boot.img", Regular, 0o644, 0, &[0xeb; 512]),
            ("./boot/grub/i386-pc/core.img", Regular, 0o644, 0, &[0xc0; 3000]),
            ("./usr/bin/busybox", Regular, 0o755, 0, b"busybox"),
            ("./usr/bin/busy \"box\"", Link, 0o755, 0, b"./usr/bin/busybox"),
            ("./usr/bin/su", Regular, 0o4755, 0, b""),
            ("./usr/lib/modules/6.1.0", Directory, 0o755, 0, b""),
            ("./usr/lib/modules/6.1.0/modules.dep", Regular, 0o644, 0, b""),
            ("./var/mail/", Directory, 0o2775, 1000, b""),
            ("./var/mail/large", Regular, 0o640, 1000, &[7; 3_000_000]),
            ("./var/vcap", Directory, 0o755, 0, b""),
            ("./var/vcap/bosh", Directory, 0o755, 0, b""),
            ("./var/vcap/bosh/agent.json", Regular, 0o644, 0, agent.as_bytes()),
        ],
    );
    add(&mut root, more);
    let root = root.into_inner().unwrap().finish().unwrap();
    let mut archive = tar::Builder::new(GzEncoder::new(File::create(out).unwrap(), Compression::none()));
    add(
        &mut archive,
        &[
            ("packages.txt", Regular, 0o644, 0, b"busybox 1.35\n"),
            ("image", Regular, 0o644, 0, &root),
            ("stemcell.MF", Regular, 0o644, 0, b"---\nstemcell_formats: [general-tar, directorate-tar]\n"),
        ],
    );
    archive.into_inner().unwrap().finish().unwrap();
}

pub const KERNEL: Row<'_> = ("./boot/vmlinuz-6.1.0", EntryType::Regular, 0o644, 0, b"kernel");

pub fn files(archive: impl Read) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let (name, mut content) = (entry.path().unwrap().display().to_string(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        (name, content)
    };
    archive.entries().unwrap().map(read).collect()
}
