//! Whether there is room on the disk for more entries. The owner looks after the disk and says so; here is what follows.
//!
//! A database that runs into a full disk in the middle of a write is lost to this process. So the replica stops asking for
//! writes while there is still room for those under way: first it takes no more proposals and does not stand for
//! election, then it takes no more entries from its leader either. It answers for its term, votes and reads all along.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::Node;

/// How much room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough.
    #[default]
    Ample,
    /// What a follower needs for a while: whoever leads should be another one.
    Little,
    /// What the writes under way need.
    None,
}

/// What the owner said last.
#[derive(Default)]
pub(crate) struct Told(AtomicU8);

impl Told {
    pub(crate) fn room(&self) -> Room {
        match self.0.load(Ordering::Acquire) {
            0 => Room::Ample,
            1 => Room::Little,
            _ => Room::None,
        }
    }

    fn set(&self, room: Room) {
        self.0.store(room as u8, Ordering::Release);
    }
}

impl Node {
    /// Says how much room there is on the disk. Until it is said, there is enough.
    ///
    /// With little room, proposals at this replica are refused ([`ProposeError::NoRoom`](crate::ProposeError::NoRoom)) and it
    /// stands for no election; handing over leadership is the owner's business, who knows which other one has
    /// room. With none, entries from a leader are refused too, which it sends again.
    pub fn set_room(&self, room: Room) {
        self.inner.room.set(room);
        // The only voter has nobody to leave it to, and nothing is read while nobody leads.
        let alone = self.status().members.iter().filter(|member| member.voter).count() == 1;
        self.engine().runtime_config().elect(room == Room::Ample || alone);
    }

    /// Returns how much room there is, as it was said last.
    pub fn room(&self) -> Room {
        self.inner.room.room()
    }
}
