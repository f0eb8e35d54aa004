//! What agents were sent.

use std::io::Read as _;

use agent_api::Method;
use flate2::read::GzDecoder;
use model::instance::Instance;

use crate::world::TestWorld;

/// Returns a rendered file (`job/config/file`) as the agent of an instance got it last.
pub fn rendered_file(world: &TestWorld, instance: &Instance, path: &str) -> String {
    let agent = world.read(|state| state.active_vm(&instance.spec.id).unwrap().agent);
    let uploads = world.outside.deeds().into_iter().filter(|(to, _)| *to == agent);
    let mut archives = uploads.filter_map(|(_, deed)| match deed.method {
        Method::UploadBlob { content, .. } => Some(content),
        _ => None,
    });
    let archive = archives.next_back().expect("nothing was uploaded");
    let mut archive = tar::Archive::new(GzDecoder::new(&archive[..]));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path_bytes()[..] == *path.as_bytes() {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            return text;
        }
    }
    panic!("there is no {path}");
}
