//! Things to deploy: the example release `hello` in the shapes that stories ask for, and small releases of our own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::{compiler, forge, programs};

/// Returns the manifest of one instance of a job that has no process, from the release of the same name.
pub fn one_job(deployment: &str, job: &str) -> String {
    format!(
        "name: {deployment}\n\
         releases: [{{name: {job}, version: latest}}]\n\
         stemcells: [{{alias: default, os: directorate-host, version: '1.0'}}]\n\
         update: {{canaries: 1, max_in_flight: 1, canary_watch_time: 100-30000, update_watch_time: 100-30000}}\n\
         instance_groups:\n\
         - {{name: g, azs: [z1], instances: 1, vm_type: small, stemcell: default, networks: [{{name: default}}], \
         jobs: [{{name: {job}, release: {job}}}]}}\n"
    )
}

/// Returns one of the examples of this repository.
pub fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// The addresses that VMs can have.
#[derive(Clone, Copy, Debug)]
pub enum Net {
    /// The host's loopback, 127.N.0.0/16: for VMs that are processes. A zone has a /24.
    Loopback(u8),
    /// 10.244.0.0/16, which exists only in the simulated cloud, or at a daemon in a laboratory.
    Simulated,
}

/// Returns a cloud config with two zones, `z1` and `z2`.
pub fn cloud_config(net: Net) -> String {
    let subnets = match net {
        Net::Loopback(n) => (1..=2).fold(String::new(), |mut text, zone| {
            let _ = write!(
                text,
                "\n  - {{range: 127.{n}.{zone}.0/24, gateway: 127.{n}.{zone}.1, az: z{zone}, dns: [], \
                 static: [127.{n}.{zone}.200 - 127.{n}.{zone}.250]}}"
            );
            text
        }),
        Net::Simulated => "\n  - {range: 10.244.0.0/16, gateway: 10.244.0.1, azs: [z1, z2], dns: []}".into(),
    };
    format!(
        "azs: [{{name: z1}}, {{name: z2}}]\n\
         vm_types: [{{name: small}}, {{name: compilation}}]\n\
         disk_types: [{{name: small, disk_size: 64}}]\n\
         networks:\n- name: default\n  type: manual\n  subnets:{subnets}\n\
         compilation: {{workers: 2, reuse_compilation_vms: true, az: z1, vm_type: compilation, network: default}}\n"
    )
}

/// Returns a cloud config by which what is compiled on a cloud of machines is compiled in containers.
pub fn compiling_in_containers(cloud_config: &str) -> Result<String> {
    let (anywhere, in_containers) =
        ("{name: compilation}", "{name: compilation, cloud_properties: {isolation: namespaces}}");
    ensure!(cloud_config.contains(anywhere), "there is no VM type for compiling in:\n{cloud_config}");
    Ok(cloud_config.replace(anywhere, in_containers))
}

/// A deployment of `hello`.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The deployment's name.
    pub name: String,
    /// How many instances, over both zones.
    pub instances: usize,
    /// What they say; another greeting is another configuration, so every instance is updated.
    pub greeting: String,
    /// How many are updated at once.
    pub max_in_flight: usize,
    /// A persistent disk for each.
    pub disk: Option<&'static str>,
    /// The property `behaviour` of the job.
    pub behaviour: &'static str,
    /// How long each instance is drained: makes an update last.
    pub drain_seconds: u32,
    /// How long an instance may take to be healthy.
    pub watch_ms: u32,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            name: "hello".into(),
            instances: 2,
            greeting: "Hello".into(),
            max_in_flight: 1,
            disk: None,
            behaviour: "healthy",
            drain_seconds: 0,
            watch_ms: 30_000,
        }
    }
}

impl Hello {
    /// Returns the manifest.
    pub fn manifest(&self) -> String {
        let disk = self.disk.map(|name| format!("  persistent_disk_type: {name}\n")).unwrap_or_default();
        format!(
            "name: {name}\n\
             releases: [{{name: hello, version: latest}}]\n\
             stemcells: [{{alias: default, os: directorate-host, version: '1.0'}}]\n\
             update: {{canaries: 1, max_in_flight: {max_in_flight}, canary_watch_time: 100-{watch_ms}, \
             update_watch_time: 100-{watch_ms}}}\n\
             instance_groups:\n\
             - name: hello\n  azs: [z1, z2]\n  instances: {instances}\n  vm_type: small\n  stemcell: default\n{disk}\
             \x20 networks: [{{name: default}}]\n\
             \x20 jobs:\n  - name: hello\n    release: hello\n\
             \x20   properties: {{greeting: {greeting}, behaviour: {behaviour}, drain_seconds: {drain}}}\n",
            name = self.name,
            max_in_flight = self.max_in_flight,
            watch_ms = self.watch_ms,
            instances = self.instances,
            greeting = self.greeting,
            behaviour = self.behaviour,
            drain = self.drain_seconds,
        )
    }

    /// Writes the manifest into the fleet's folder and returns the file's path.
    pub fn file(&self, cluster: &Cluster) -> Result<String> {
        write_file(cluster, &format!("{}.yml", self.name), &self.manifest())
    }
}

/// Writes a file into the fleet's folder and returns its path.
pub fn write_file(cluster: &Cluster, name: &str, text: &str) -> Result<String> {
    let path = cluster.folder().join(name);
    fs::write(&path, text)?;
    path.to_str().map(str::to_owned).context("temporary folders have UTF-8 names")
}

/// Gives a fleet all that `hello` needs: cloud config, stemcell, release.
pub async fn upload_hello(cluster: &Cluster, net: Net) -> Result<()> {
    upload_base(cluster, net).await?;
    let release = ReleaseFolder::copy_of_hello(cluster.folder())?.archive()?;
    cluster.operate(&["upload-release", release.to_str().context("UTF-8")?]).await?;
    Ok(())
}

/// Gives a fleet a cloud config and a stemcell.
pub async fn upload_base(cluster: &Cluster, net: Net) -> Result<()> {
    let config = write_file(cluster, "cloud-config.yml", &cloud_config(net))?;
    cluster.operate(&["update-cloud-config", &config]).await?;
    let stemcell = match cluster.docker() {
        Some(_) => docker_stemcell(cluster.folder())?,
        None => build_stemcell(cluster.folder())?,
    };
    cluster.operate(&["upload-stemcell", stemcell.to_str().context("UTF-8")?]).await?;
    Ok(())
}

/// Builds the host's stemcell in a folder.
pub fn build_stemcell(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("stemcell.tgz");
    stemcell::build_host(&path, &stemcell::StemcellNames::host())?;
    Ok(path)
}

/// Builds the smallest stemcell that `hello` can be compiled and run in, out of this machine's files, by the name of the host's.
fn docker_stemcell(folder: &Path) -> Result<PathBuf> {
    let image = folder.join("rootfs.tar");
    compiler::rootfs(&example("hello-release/src/hello/hello.c"), &image)?;
    forge::rootfs_stemcell(&folder.join("stemcell.tgz"), "directorate-host", &fs::read(&image)?)
}

/// A release's source.
pub struct ReleaseFolder {
    path: PathBuf,
    name: String,
}

impl ReleaseFolder {
    /// Begins a release of our own in the fleet's folder.
    pub fn new(cluster: &Cluster, name: &str) -> Result<Self> {
        let folder = Self { path: cluster.folder().join(format!("{name}-release")), name: name.to_owned() };
        folder.write("config/final.yml", &format!("---\nname: {name}\n"))?;
        folder.write("config/blobs.yml", "--- {}\n")?;
        Ok(folder)
    }

    /// Copies the example into a folder.
    pub fn copy_of_hello(folder: &Path) -> Result<Self> {
        Self::copy_of("hello", folder)
    }

    /// Copies an example into a folder: creating a release writes into its own.
    pub fn copy_of(name: &str, folder: &Path) -> Result<Self> {
        let source = format!("{name}-release");
        let path = folder.join(&source);
        copy_tree(&example(&source), &path)?;
        Ok(Self { path, name: name.to_owned() })
    }

    /// Gives it a blob, and no other.
    pub fn only_blob(&self, name: &str, content: &[u8]) -> Result<()> {
        let (size, digest) = (content.len(), forge::sha1(content));
        self.write("config/blobs.yml", &format!("---\n{name}: {{size: {size}, sha: {digest}}}\n"))?;
        self.write_bytes(&format!("blobs/{name}"), content)
    }

    /// Adds a package without files but its packaging script.
    pub fn package(&self, name: &str, dependencies: &[&str], packaging: &str) -> Result<()> {
        let list = dependencies.join(", ");
        self.write(&format!("src/{name}/marker"), name)?;
        self.write(
            &format!("packages/{name}/spec"),
            &format!("---\nname: {name}\ndependencies: [{list}]\nfiles: [{name}/marker]\n"),
        )?;
        self.write(&format!("packages/{name}/packaging"), packaging)
    }

    /// Adds a job with one template, rendered to `config/it`, and no process.
    pub fn job(&self, name: &str, packages: &[&str], template: &str) -> Result<()> {
        let list = packages.join(", ");
        self.write(&format!("jobs/{name}/monit"), "")?;
        self.write(&format!("jobs/{name}/templates/it.erb"), template)?;
        self.write(
            &format!("jobs/{name}/spec"),
            &format!(
                "---\nname: {name}\ntemplates: {{it.erb: config/it}}\npackages: [{list}]\nproperties: {{}}\n"
            ),
        )
    }

    /// Makes the archive, with `dctl create-release`.
    pub fn archive(&self) -> Result<PathBuf> {
        let archive = self.path.with_extension("tgz");
        let mut command = Command::new(programs::dctl());
        command.args(["create-release", "--force", "--dir"]).arg(&self.path).arg("--tarball").arg(&archive);
        let made = command.output()?;
        ensure!(
            made.status.success(),
            "create-release {}: {}",
            self.name,
            String::from_utf8_lossy(&made.stderr)
        );
        Ok(archive)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        self.write_bytes(path, text.as_bytes())
    }

    fn write_bytes(&self, path: &str, content: &[u8]) -> Result<()> {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().context("below the release's folder")?)?;
        Ok(fs::write(path, content)?)
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_tree(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
