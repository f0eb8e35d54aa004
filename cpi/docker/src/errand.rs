//! Errands: short-lived containers in the image of a VM, which do what the daemon's API has no word for.
//!
//! A volume can't be added to a container that runs. So an errand that has the volume sees the VM's processes and rights
//! that the VM does not have; it runs `dagent volume show` out of the *image*, which nobody in the VM can change, and that
//! moves a copy of the mount into the VM's mount namespace. One errand at a time per object, by its name; whoever begins
//! one holds the object's lock, and so knows that an older one of the same name has lost whoever waited for it.

use cpi_api::CpiErrorKind;
use cpi_host::Scope;

use crate::body::Errand;
use crate::cloud::Cloud;
use crate::error::DockerError;
use crate::names::Kind;
use crate::settings::AGENT;

/// Where an errand finds the volume that it is about.
const VOLUME: &str = "/volume";
/// Where it finds the one to copy to.
const COPY: &str = "/copy";

/// Returns where a VM sees a disk.
pub(crate) fn place(disk: &str) -> String {
    format!("/var/vcap/bosh/disks/{disk}")
}

/// Makes a disk visible in a VM that runs. Twice is fine.
pub(crate) fn show(cloud: &Cloud, scope: &Scope, vm: &Beside<'_>, disk: &str) -> Result<(), DockerError> {
    let volumes = vec![(disk.to_owned(), VOLUME)];
    run(cloud, scope, vm, volumes, &[AGENT, "volume", "show", VOLUME, &place(disk)], true)
}

/// Takes a disk out of a VM's sight; fails while somebody uses it. Twice is fine.
pub(crate) fn hide(cloud: &Cloud, scope: &Scope, vm: &Beside<'_>, disk: &str) -> Result<(), DockerError> {
    run(cloud, scope, vm, Vec::new(), &[AGENT, "volume", "hide", &place(disk)], true)
}

/// Copies what is on a volume to another one.
pub(crate) fn copy(
    cloud: &Cloud,
    scope: &Scope,
    by: &Beside<'_>,
    volume: &str,
    to: &str,
) -> Result<(), DockerError> {
    let volumes = vec![(volume.to_owned(), VOLUME), (to.to_owned(), COPY)];
    run(cloud, scope, by, volumes, &["cp", "-a", &format!("{VOLUME}/."), COPY], false)
}

/// For which object an errand is done, and in which image.
pub(crate) struct Beside<'a> {
    pub object: &'a str,
    pub image: &'a str,
}

fn run(
    cloud: &Cloud,
    scope: &Scope,
    what: &Beside<'_>,
    volumes: Vec<(String, &'static str)>,
    command: &[&str],
    enters: bool,
) -> Result<(), DockerError> {
    cloud.store.check(scope)?;
    let name = cloud.names.errand(what.object);
    cloud.daemon.remove(&name)?;
    let errand = Errand {
        image: what.image.to_owned(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        labels: cloud.names.labels(Kind::Errand),
        volumes,
        beside: enters.then(|| what.object.to_owned()),
    };
    cloud.daemon.create(&name, errand.into_body())?;
    let outcome = cloud.daemon.start(&name).and_then(|()| match cloud.daemon.wait(&name)? {
        0 => Ok(()),
        code => {
            let said = cloud.daemon.last_words(&name)?;
            let message = format!("`{}` failed ({code}): {}", command.join(" "), said.trim());
            Err(DockerError::refused(CpiErrorKind::Other, message))
        }
    });
    // Whatever came of it: the next errand would remove it, but nobody may send one.
    outcome.and(cloud.daemon.remove(&name))
}
