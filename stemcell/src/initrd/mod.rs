//! The small archive that a machine's kernel starts from: `busybox`, some drivers, and a first program.
//!
//! Made of a stemcell's own files, and the same files give the same bytes.

mod cpio;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::error::StemcellError;

use cpio::Cpio;

/// What goes into one.
pub struct Initrd<'a> {
    /// The folder with the kernel's modules, `lib/modules/VERSION`.
    pub modules: PathBuf,
    /// A static `busybox`.
    pub busybox: PathBuf,
    /// Modules by name, loaded in this order, each after what it needs. What is built into the kernel is not there as a file.
    pub drivers: &'a [&'a str],
    /// The first program, a script.
    pub init: &'a str,
}

impl Initrd<'_> {
    /// Writes the archive to a file.
    pub fn write(&self, to: &Path) -> Result<(), StemcellError> {
        let table_path = self.modules.join("modules.dep");
        let table = fs::read_to_string(&table_path).map_err(StemcellError::os("read", &table_path))?;
        let busybox = fs::read(&self.busybox).map_err(StemcellError::os("read", &self.busybox))?;
        let failed = || StemcellError::os("write", to);
        let mut cpio = Cpio::new(BufWriter::new(File::create(to).map_err(failed())?));
        for directory in ["bin", "dev", "modules"] {
            cpio.directory(directory).map_err(failed())?;
        }
        cpio.file("bin/busybox", &busybox).map_err(failed())?;
        cpio.file("init", self.init.as_bytes()).map_err(failed())?;
        let mut names = String::new();
        for module in in_order(&table, self.drivers) {
            let (path, name) = (self.modules.join(&module), module.rsplit('/').next().unwrap_or(&module));
            let content = fs::read(&path).map_err(StemcellError::os("read", &path))?;
            cpio.file(&format!("modules/{name}"), &content).map_err(failed())?;
            names.push_str(&format!("{name}\n"));
        }
        cpio.file("modules/order", names.as_bytes()).map_err(failed())?;
        let out = cpio.finish().map_err(failed())?;
        out.into_inner().map(drop).map_err(|error| failed()(error.into_error()))
    }
}

/// Returns the files of some modules and of all that they need, each after what it needs, by the text of a `modules.dep`.
fn in_order(table: &str, wanted: &[&str]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for module in wanted {
        let line = table.lines().find(|line| {
            let file = line.split(':').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            file.split(".ko").next().unwrap_or_default().replace('-', "_") == *module
        });
        let Some((own, needed)) = line.and_then(|line| line.split_once(':')) else { continue };
        // What is needed first stands last.
        for file in needed.split_ascii_whitespace().rev().chain([own]) {
            if known.insert(file) {
                order.push(file.to_owned());
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let table = "kernel/a/virtio_pci.ko: kernel/a/modern.ko kernel/a/virtio.ko kernel/a/virtio_ring.ko\n\
                     kernel/b/virtio_blk.ko.xz: kernel/a/virtio.ko kernel/a/virtio_ring.ko\n\
                     kernel/a/virtio_ring.ko:\n\
                     kernel/a/virtio.ko: kernel/a/virtio_ring.ko\n\
                     kernel/c/qemu-fw-cfg.ko:\n";
        let order = in_order(table, &["virtio_pci", "virtio_blk", "ext4", "qemu_fw_cfg"]);
        let wanted = [
            "kernel/a/virtio_ring.ko",
            "kernel/a/virtio.ko",
            "kernel/a/modern.ko",
            "kernel/a/virtio_pci.ko",
            "kernel/b/virtio_blk.ko.xz",
            "kernel/c/qemu-fw-cfg.ko",
        ];
        assert_eq!(order, wanted);
    }
}
