//! Room on the disk: looked at all the time, so that it is noticed before a write runs into its end.
//!
//! With little room a replica hands leadership to one that has enough, and takes no writes of its own; with none it also
//! stops following. It goes on answering reads, and goes back to work by itself once there is room again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use raft::{Node, Role, Room};
use rustix::fs::statvfs;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::leaving::HAND_OVER;
use super::membership::Membership;
use crate::metrics;

/// How often the disk is looked at: less than it takes to write what is kept in reserve.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Little room: less than this, or than this part of a small disk. Much less than what blobs leave free, and much more
/// than the log and the state write between two looks.
const LITTLE_BYTES: u64 = 256 << 20;
const LITTLE_PART: u64 = 10;

/// No room: a quarter of that.
const NONE_PART: u64 = 4;

/// Room again: one and a half times as much. In between, nothing changes.
const AGAIN: (u64, u64) = (3, 2);

/// How much is free, of how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Free {
    bytes: u64,
    of: u64,
}

impl Free {
    fn on(folder: &Path) -> std::io::Result<Self> {
        let found = statvfs(folder)?;
        Ok(Self { bytes: found.f_bavail * found.f_frsize, of: found.f_blocks * found.f_frsize })
    }

    /// Returns how much room that is, after there was `before`.
    fn room(self, before: Room) -> Room {
        let little = LITTLE_BYTES.min(self.of / LITTLE_PART);
        let none = little / NONE_PART;
        let rising = |mark: u64| mark / AGAIN.1 * AGAIN.0;
        // Falling below a mark counts at once; rising above it needs some more.
        let mark = |mark: u64, was_below: bool| if was_below { rising(mark) } else { mark };
        if self.bytes < mark(none, before == Room::None) {
            Room::None
        } else if self.bytes < mark(little, before != Room::Ample) {
            Room::Little
        } else {
            Room::Ample
        }
    }
}

/// Returns a word for it, as `cluster status` shows it.
pub fn word(room: Room) -> &'static str {
    match room {
        Room::Ample => "ample",
        Room::Little => "little",
        Room::None => "none",
    }
}

/// Looks for the life of the process.
pub async fn watch(folder: PathBuf, membership: Membership, stop: CancellationToken) {
    loop {
        match Free::on(&folder) {
            Ok(free) => {
                metrics::disk_free(free.bytes);
                take_in(&membership.node, free);
            }
            Err(error) => {
                warn!(folder = %folder.display(), %error, "the free space of the disk is not known")
            }
        }
        if membership.node.room() != Room::Ample {
            tokio::select! {
                () = hand_over(&membership) => {}
                () = stop.cancelled() => return,
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn take_in(node: &Node, free: Free) {
    let (before, mebibytes) = (node.room(), free.bytes >> 20);
    let now = free.room(before);
    // Also when nothing has changed: whether this is the only voter may have.
    node.set_room(now);
    match now {
        _ if now == before => {}
        Room::Ample => info!(mebibytes, "there is room on the disk again"),
        Room::Little => {
            warn!(mebibytes, "little room on the disk: this replica does not lead and takes no writes")
        }
        Room::None => {
            error!(mebibytes, "no room on the disk: this replica takes nothing more, and answers reads only")
        }
    }
}

/// Hands leadership to a replica that has room, if this one leads and there is one.
async fn hand_over(membership: &Membership) {
    if membership.node.status().role != Role::Leader {
        return;
    }
    let others = membership.statuses().await.into_iter().filter(|(member, _)| member.node != membership.id);
    let with_room = others.filter_map(|(member, told)| Some((member.node, told?)));
    let best = with_room
        .filter(|(_, told)| told.room == word(Room::Ample))
        .max_by_key(|(_, told)| told.last_log_index);
    let Some((node, _)) = best else { return };
    match membership.node.transfer_leader(Some(node.0), HAND_OVER).await {
        Ok(leader) => info!(leader, "handed over: there is little room on the disk here"),
        Err(error) => warn!(%error, "leadership was not handed over"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falling_counts_at_once_and_rising_needs_some_more() {
        let of = 100 << 30;
        let at = |mebibytes: u64, before| Free { bytes: mebibytes << 20, of }.room(before);
        for before in [Room::Ample, Room::Little, Room::None] {
            assert_eq!(at(1000, before), Room::Ample);
            assert_eq!(at(10, before), Room::None);
        }
        assert_eq!((at(300, Room::Ample), at(300, Room::Little)), (Room::Ample, Room::Little));
        assert_eq!((at(80, Room::Little), at(80, Room::None)), (Room::Little, Room::None));
        assert_eq!(at(100, Room::None), Room::Little);
        assert_eq!(at(384, Room::None), Room::Ample);
    }

    #[test]
    fn a_small_disk_has_smaller_marks() {
        let at = |mebibytes: u64| Free { bytes: mebibytes << 20, of: 160 << 20 }.room(Room::Ample);
        assert_eq!((at(17), at(15), at(3)), (Room::Ample, Room::Little, Room::None));
        assert!(Free::on(Path::new("/")).unwrap().of > 0);
        assert!(Free::on(Path::new("/not/there")).is_err());
    }
}
