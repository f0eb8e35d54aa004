//! Stemcells whose image is a disk that boots by itself: what is in them, made of a root file system that is none of Debian's, in a
//! second. That a real one boots is seen in `chaos-tests`.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{KERNEL, Row, files, write_stemcell};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest as _, Sha1};
use stemcell::{DebianFormat, RepackedDebian, StemcellNames, build_host, repack_debian};
use tar::EntryType;

/// Makes a stemcell of a format.
fn packed(dir: &Path, format: DebianFormat) -> PathBuf {
    let (from, out) = (dir.join("tar.tgz"), dir.join(format!("{format}.tgz")));
    write_stemcell(&from, &[KERNEL]);
    let repacked = RepackedDebian { from, format, dagent: Some("/bin/true".into()) };
    repack_debian(&out, &repacked).unwrap();
    out
}

/// Takes the disk out of a stemcell, as BOSH's CPIs do.
fn unpack(stemcell: &Path, to: &Path) -> PathBuf {
    let script = "set -e; cd $2; tar -xzf $1 image; tar -xzSf image; ls; rm image";
    let output = Command::new("sh").args(["-c", script, "unpack"]).args([stemcell, to]).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "image\nroot.img\n",
        "one file: {:?}",
        output.stderr
    );
    to.join("root.img")
}

/// Asks `debugfs` about the file system of a disk.
fn ask(disk: &Path, question: &str) -> String {
    let within = format!("{}?offset={}", disk.display(), 1 << 20);
    let mut debugfs = Command::new("debugfs");
    // Not everybody has root's programs on the search path.
    debugfs.args(["-R", question, &within]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = debugfs.output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_disk_has_a_boot_loader_one_partition_and_everything_that_was_in_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let unpacked = tempfile::tempdir().unwrap();
    let disk = unpack(&packed(dir.path(), DebianFormat::OpenstackRaw), unpacked.path());
    let mut start = vec![0; 1 << 20];
    File::open(&disk).unwrap().read_exact(&mut start).unwrap();
    assert_eq!(fs::metadata(&disk).unwrap().len(), 1024 << 20);
    assert_eq!(start[512..3512], [0xc0; 3000], "the core follows the first sector");
    assert_eq!(start[446], 0x80, "the partition is active");
    assert_eq!(start[454..462], [2048u32.to_le_bytes(), (1023u32 * 2048).to_le_bytes()].concat());

    for (path, wanted) in [
        ("/bin", "Fast link dest: \"usr/bin\""),
        ("/usr/bin/su", "Mode:  04755"),
        ("/usr/bin/busybox", "Links: 2"),
        ("/var/mail", "Mode:  02775"),
        ("/var/mail/large", "User:  1000   Group:  1000"),
        ("/var/mail/large", "mtime: 0x5f5e1000"),
        ("/var/mail/large", "ctime: 0x6553f100"),
        ("/usr/lib/directorate/grow-root", "Mode:  0755"),
        ("/var/vcap/bosh/bin/dagent", "Mode:  0755"),
        ("/etc/systemd/system/multi-user.target.wants/systemd-networkd.service", "Type: symlink"),
    ] {
        let said = ask(&disk, &format!("stat {path}"));
        assert!(said.contains(wanted), "no `{wanted}` of {path}: {said}");
    }
    assert_eq!(ask(&disk, "cat /var/mail/large").as_bytes(), [7; 3_000_000]);
    assert_eq!(ask(&disk, "cat \"/usr/bin/busy \"\"box\"\"\""), "busybox");
    let capability = ask(&disk, "ea_get -x \"/usr/bin/low port\" security.capability");
    assert!(capability.contains("01 00 00 02 00 04 00 00"), "{capability}");

    let menu = ask(&disk, "cat /boot/grub/grub.cfg");
    let uuid = ask(&disk, "show_super_stats -h");
    let uuid = uuid.lines().find_map(|line| line.strip_prefix("Filesystem UUID:")).unwrap().trim();
    assert!(menu.contains(&format!("linux /boot/vmlinuz-6.1.0 root=UUID={uuid} ")), "{menu}");
    assert!(ask(&disk, "cat /boot/initrd.img").starts_with("070701"));
    let agent: serde_json::Value =
        serde_json::from_str(&ask(&disk, "cat /var/vcap/bosh/agent.json")).unwrap();
    assert_eq!(agent["Infrastructure"]["Settings"]["Sources"][0]["Type"], "ConfigDrive");
}

#[test]
fn the_manifest_says_what_boshs_says_and_the_same_root_is_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = |dir: &tempfile::TempDir| fs::read(packed(dir.path(), DebianFormat::OpenstackQcow2)).unwrap();
    let made = bytes(&one);
    assert!(made == bytes(&two), "two stemcells of one root differ");
    let archive = files(made.as_slice());

    let sha1: String = Sha1::digest(&archive["image"]).iter().map(|byte| format!("{byte:02x}")).collect();
    let wanted = format!(
        "---\nname: \"bosh-openstack-kvm-debian-bookworm-go_agent\"\nversion: \"1.0\"\nbosh_protocol: \"1\"\n\
         api_version: 3\nsha1: {sha1}\noperating_system: \"debian-bookworm\"\n\
         stemcell_formats: [openstack-qcow2]\nagent: directorate\ncloud_properties:\n  \
         name: \"bosh-openstack-kvm-debian-bookworm-go_agent\"\n  version: \"1.0\"\n  infrastructure: openstack\n  \
         architecture: {}\n  os_type: linux\n  os_distro: debian\n  hypervisor: kvm\n  disk: 1024\n  \
         disk_format: qcow2\n  container_format: bare\n  auto_disk_config: true\n",
        std::env::consts::ARCH
    );
    assert_eq!(String::from_utf8(archive["stemcell.MF"].clone()).unwrap(), wanted);
    assert_eq!(archive["packages.txt"], b"busybox 1.35\n");
    assert!(archive.contains_key("dev_tools_file_list.txt"));
}

/// Returns why a stemcell can't be packed anew.
fn why_not(from: &Path, format: DebianFormat) -> String {
    let repacked = RepackedDebian { from: from.to_owned(), format, dagent: None };
    let error = repack_debian(&from.with_file_name("out.tgz"), &repacked).unwrap_err();
    std::error::Error::source(&error).map_or(error.to_string(), |source| format!("{error}: {source}"))
}

#[test]
fn what_is_no_root_file_system_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let check = |from: &Path, wanted: &str| {
        let wanted = wanted.replace("FROM", &from.display().to_string());
        assert_eq!(why_not(from, DebianFormat::OpenstackRaw), wanted);
    };
    let none = "`FROM` is no stemcell of the format `tar`: ";
    let host = dir.path().join("host.tgz");
    build_host(&host, &StemcellNames::host()).unwrap();
    let wanted = "its `stemcell.MF` lists [directorate-host] and not `directorate-tar`";
    check(&host, &format!("{none}{wanted}"));
    let wanted = "its `stemcell.MF` lists [openstack-qcow2] and not `directorate-tar`";
    check(&packed(dir.path(), DebianFormat::OpenstackQcow2), &format!("{none}{wanted}"));
    let other = dir.path().join("other.tgz");
    let archive = tar::Builder::new(GzEncoder::new(File::create(&other).unwrap(), Compression::none()));
    archive.into_inner().unwrap().finish().unwrap();
    check(&other, &format!("{none}it has no `stemcell.MF`"));
    let text = dir.path().join("text");
    fs::write(&text, "no archive, but long enough to be looked at").unwrap();
    check(&text, "failed to unpack stemcell `FROM`: invalid gzip header");
    check(
        &dir.path().join("missing"),
        "failed to open stemcell `FROM`: No such file or directory (os error 2)",
    );

    let why = why_not(&host, DebianFormat::Tar);
    assert_eq!(
        why,
        "nothing would be different, if the format is `tar` and the agent the same: name another agent, or openstack-raw or \
         openstack-qcow2 as the format"
    );
}

#[test]
fn what_can_not_boot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("tar.tgz");
    let refusal = |more: &[Row<'_>]| {
        write_stemcell(&from, more);
        why_not(&from, DebianFormat::OpenstackRaw)
    };
    let why = refusal(&[]);
    assert!(why.contains("has no kernel"), "{why}");
    let half = [0xeb; 511];
    let why = refusal(&[KERNEL, ("./boot/grub/i386-pc/boot.img", EntryType::Regular, 0o644, 0, &half)]);
    assert!(why.contains("the boot loader's first sector is none"), "{why}");
    let why = refusal(&[KERNEL, ("./two\nlines", EntryType::Regular, 0o644, 0, b"")]);
    assert!(why.contains("is not plain text"), "{why}");
    assert!(why.contains(&format!("the root file system of `{}`", from.display())), "{why}");
    let no_room = [0xc0; 1 << 20];
    let why = refusal(&[KERNEL, ("./boot/grub/i386-pc/core.img", EntryType::Regular, 0o644, 0, &no_room)]);
    assert!(why.contains("the boot loader has 1048576 bytes"), "the later one counts: {why}");
    let why = refusal(&[KERNEL, ("./nowhere/file", EntryType::Regular, 0o644, 0, b"")]);
    assert!(why.contains("debugfs could not fill the file system: /nowhere: File not found"), "{why}");
    assert!("openstack".parse::<DebianFormat>().unwrap_err().contains("there are tar, openstack-raw"));
}
