//! What a new VM finds: its agent's settings, and the script that is its first process.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use cpi_api::{CpiErrorKind, CreateVm};
use model::VmCid;
use model::agent_settings::{self, AgentDisks, AgentPlatform, AgentSettings, AgentVm, SWITCHED_OFF};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::error::DockerError;

/// The VM's first process.
pub(crate) const BOOT: &str = "/var/vcap/bosh/boot";

/// The agent's settings.
const SETTINGS: &str = "/var/vcap/bosh/settings.json";

/// Where every image of ours has the agent: outside `/var/vcap`, which is a volume.
pub(crate) const AGENT: &str = "/usr/lib/directorate/dagent";

/// Where the agent answers names.
const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 53);

/// User and group id of vcap where the stemcell has none.
const VCAP_ID: u64 = 1000;

/// Returns the archive that makes a container of an image of ours this VM.
pub(crate) fn archive(cid: &VmCid, request: &CreateVm) -> Result<Vec<u8>, DockerError> {
    let settings = serde_json::to_vec_pretty(&settings(cid, request)).map_err(|error| {
        DockerError::refused(CpiErrorKind::VmCreationFailed, format!("the agent's settings: {error}"))
    })?;
    let boot = boot();
    let files = [
        // Readable by root alone: it holds a token.
        File { path: SETTINGS, mode: 0o600, content: &settings },
        File { path: BOOT, mode: 0o700, content: boot.as_bytes() },
    ];
    pack(&files, Some("/home/vcap"))
}

/// A file to be.
pub(crate) struct File<'a> {
    pub path: &'a str,
    pub mode: u32,
    pub content: &'a [u8],
}

/// Packs files, and a home for vcap.
pub(crate) fn pack(files: &[File<'_>], home: Option<&str>) -> Result<Vec<u8>, DockerError> {
    let mut archive = Builder::new(Vec::new());
    let mut add = |path: &str, header: &mut Header, content: &[u8]| {
        header.set_size(content.len() as u64);
        header.set_cksum();
        let path = path.trim_start_matches('/');
        archive.append_data(header, path, content).map_err(DockerError::os("pack", path))
    };
    for file in files {
        let mut header = Header::new_gnu();
        header.set_mode(file.mode);
        add(file.path, &mut header, file.content)?;
    }
    if let Some(home) = home {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_uid(VCAP_ID);
        header.set_gid(VCAP_ID);
        add(home, &mut header, &[])?;
    }
    archive.into_inner().map_err(DockerError::os("pack", "files of a VM"))
}

fn settings(cid: &VmCid, request: &CreateVm) -> AgentSettings {
    let network = |network| {
        let mut settings = agent_settings::network(network);
        // The address is there before the agent starts.
        settings.insert("preconfigured".into(), json!(true));
        Value::Object(settings)
    };
    let networks: BTreeMap<String, Value> =
        request.networks.iter().map(|one| (one.name.to_string(), network(one))).collect();
    AgentSettings {
        agent_id: request.agent_id.clone(),
        vm: AgentVm { name: cid.to_string() },
        endpoints: request.bootstrap.endpoints.clone(),
        authorities_pem: request.bootstrap.authorities_pem.clone(),
        token: request.bootstrap.token.clone(),
        networks,
        disks: AgentDisks::default(),
        env: request.env.clone(),
        platform: AgentPlatform::Container,
        path_rewrite: false,
        resolver: Some(RESOLVER),
        keeps_ssh_server: true,
        director_proxy: None,
    }
}

/// Returns the script. It does with the shell's own words what it can: a stemcell may have little else. The agent ends with
/// its machine only when it was told to; after a crash it is started again, and finds its jobs running.
fn boot() -> String {
    format!(
        r#"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
add_vcap() {{
  while IFS=: read -r name _; do
    [ "$name" = vcap ] && return
  done < "$1"
  echo "$2" >> "$1"
}} 2>/dev/null
for file in group passwd shadow; do
  [ -e /etc/$file ] || : > /etc/$file
done
add_vcap /etc/group 'vcap:x:{VCAP_ID}:'
add_vcap /etc/passwd 'vcap:x:{VCAP_ID}:{VCAP_ID}:BOSH system user:/home/vcap:/bin/bash'
add_vcap /etc/shadow 'vcap:*:19000:0:99999:7:::'
echo 'nameserver {resolver}' > /etc/resolv.conf
while :; do
  {AGENT} --settings {SETTINGS} --base-dir /var/vcap
  [ $? = {SWITCHED_OFF} ] && exit 0
  sleep 1
done
"#,
        resolver = RESOLVER.ip(),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn an_archive_is_for_root_alone_and_brings_a_home() {
        let files = [File { path: "/a/b", mode: 0o600, content: b"x" }];
        let packed = pack(&files, Some("/home/vcap")).unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let mut file = entries.next().unwrap();
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!((file.path().unwrap().to_str(), content.as_str()), (Some("a/b"), "x"));
        assert_eq!(file.header().mode().unwrap(), 0o600);
        let home = entries.next().unwrap();
        assert!(home.header().entry_type().is_dir() && home.header().uid().unwrap() == VCAP_ID);
    }

    #[test]
    fn the_script_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("boot");
        std::fs::write(&script, boot()).unwrap();
        let checked = Command::new("sh").arg("-n").arg(&script).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}
