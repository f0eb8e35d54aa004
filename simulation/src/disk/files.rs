//! Files and directories in memory, and what of them a crash leaves.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, PoisonError};

use raft::disk::{DatabaseKind, DirEntry};

use super::database::{Content, Stored};
use super::{IMAGE, split};
use crate::chance::Chance;

/// Something on the disk; clones are the same thing under another name.
#[derive(Clone)]
pub enum Node {
    File(Arc<Mutex<File>>),
    Dir(Arc<Mutex<Dir>>),
}

#[derive(Default)]
pub struct File {
    content: Vec<u8>,
    /// How much of it is on the disk.
    synced: Option<Vec<u8>>,
}

#[derive(Default)]
pub struct Dir {
    seen: BTreeMap<String, Node>,
    synced: BTreeMap<String, Node>,
    /// The database that this is the directory of.
    database: Option<Arc<Mutex<Stored>>>,
}

/// A file system.
#[derive(Default)]
pub struct Files {
    root: Arc<Mutex<Dir>>,
}

impl Node {
    pub fn dir() -> Self {
        Self::Dir(Arc::default())
    }

    pub fn file(content: Vec<u8>) -> Self {
        Self::File(Arc::new(Mutex::new(File { content, synced: None })))
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => Arc::ptr_eq(a, b),
            (Self::Dir(a), Self::Dir(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn absent(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such file or directory: {}", path.display()))
}

impl Files {
    pub fn node(&self, path: &Path) -> Option<Node> {
        let mut at = Node::Dir(self.root.clone());
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let Node::Dir(dir) = &at else { return None };
            let next = locked(dir).seen.get(&*name.to_string_lossy()).cloned()?;
            at = next;
        }
        Some(at)
    }

    fn dir(&self, path: &Path) -> io::Result<Arc<Mutex<Dir>>> {
        match self.node(path) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(absent(path)),
        }
    }

    fn file(&self, path: &Path) -> io::Result<Arc<Mutex<File>>> {
        match self.node(path) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(absent(path)),
        }
    }

    pub fn put(&mut self, path: &Path, node: Node) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let dir = self.dir(&parent)?;
        let mut dir = locked(&dir);
        if dir.seen.contains_key(&name) {
            let error = format!("it exists already: {}", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, error));
        }
        dir.seen.insert(name, node);
        Ok(())
    }

    pub fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        for ancestor in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if ancestor.file_name().is_some() && self.node(ancestor).is_none() {
                self.put(ancestor, Node::dir())?;
            }
        }
        Ok(())
    }

    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = split(path)?;
        if let Ok(dir) = self.dir(&parent) {
            locked(&dir).seen.remove(&name);
        }
        Ok(())
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.node(from).ok_or_else(|| absent(from))?;
        let (parent, name) = split(to)?;
        locked(&*self.dir(&parent)?).seen.insert(name, node);
        self.remove(from)
    }

    pub fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = Node::File(self.file(from)?);
        self.put(to, file)
    }

    pub fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.dir(dir)?;
        let entries = locked(&dir).seen.clone();
        Ok(entries
            .into_iter()
            .map(|(name, node)| match node {
                Node::Dir(_) => DirEntry { name, is_dir: true, bytes: 0 },
                Node::File(file) => {
                    DirEntry { name, is_dir: false, bytes: locked(&file).content.len() as u64 }
                }
            })
            .collect())
    }

    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(locked(&*self.file(path)?).content.clone())
    }

    pub fn append(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        locked(&*self.file(path)?).content.extend_from_slice(content);
        Ok(())
    }

    pub fn replace(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        let file = File { content: content.to_vec(), synced: Some(content.to_vec()) };
        let (parent, name) = split(path)?;
        locked(&*self.dir(&parent)?).seen.insert(name, Node::File(Arc::new(Mutex::new(file))));
        self.sync_dir(&parent)
    }

    pub fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.dir(path)?;
        let mut dir = locked(&dir);
        dir.synced = dir.seen.clone();
        Ok(())
    }

    pub fn sync_files(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.dir(path)?;
        for node in locked(&dir).seen.values() {
            if let Node::File(file) = node {
                let mut file = locked(file);
                file.synced = Some(file.content.clone());
            }
        }
        self.sync_dir(path)
    }

    /// What a journalling file system does when a file is synced: the names on the way to it are on the disk, too.
    pub fn sync_way_to(&mut self, path: &Path) {
        let mut at = self.root.clone();
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let name = name.to_string_lossy().into_owned();
            let Some(Node::Dir(next)) = locked(&at).seen.get(&name).cloned() else { return };
            locked(&at).synced.insert(name, Node::Dir(next.clone()));
            at = next;
        }
    }

    /// Returns the database in a directory, which need not have been opened yet.
    pub fn database(&mut self, path: &Path) -> io::Result<Arc<Mutex<Stored>>> {
        let dir = self.dir(path)?;
        let mut dir = locked(&dir);
        if let Some(database) = &dir.database {
            return Ok(database.clone());
        }
        let stored = match dir.seen.get(IMAGE) {
            Some(Node::File(file)) => {
                let file = locked(file);
                let damaged = || io::Error::new(io::ErrorKind::InvalidData, "Corruption: a torn table file");
                let content = Content::from_image(&file.content).ok_or_else(damaged)?;
                Stored::of(content, file.synced.as_ref() == Some(&file.content))
            }
            _ => Stored::of(Content::default(), true),
        };
        let stored = Arc::new(Mutex::new(stored));
        dir.database = Some(stored.clone());
        Ok(stored)
    }

    pub fn open_database(&mut self, path: &Path, _kind: DatabaseKind) -> io::Result<Arc<Mutex<Stored>>> {
        self.create_dir_all(path)?;
        let stored = self.database(path)?;
        let mut held = locked(&stored);
        if std::mem::replace(&mut held.open, true) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the database is locked"));
        }
        drop(held);
        Ok(stored)
    }

    /// Nobody has anything open any more.
    pub fn close(&mut self) {
        each_dir(&self.root.clone(), &mut |dir| {
            if let Some(database) = &dir.database {
                locked(database).open = false;
            }
        });
    }

    /// Loses what was not synced, or some of it; returns how many writes of databases were lost.
    pub fn crash(&mut self, chance: &mut Chance) -> usize {
        let mut lost = 0;
        each_dir(&self.root.clone(), &mut |dir| {
            let differs = dir.seen.len() != dir.synced.len()
                || dir.seen.iter().any(|(name, node)| !dir.synced.get(name).is_some_and(|n| n.is(node)));
            if differs && chance.in_thousand(500) {
                dir.seen = dir.synced.clone();
            } else {
                dir.synced = dir.seen.clone();
            }
            for node in dir.seen.values() {
                let Node::File(file) = node else { continue };
                let mut file = locked(file);
                if file.synced.as_ref() != Some(&file.content) {
                    let whole = file.content.len() as u64;
                    let kept = match &file.synced {
                        Some(synced) if chance.in_thousand(500) => synced.clone(),
                        _ => file.content[..chance.between(0, whole) as usize].to_vec(),
                    };
                    file.content = kept.clone();
                    file.synced = Some(kept);
                }
            }
            if let Some(database) = &dir.database {
                lost += locked(database).crash(chance);
            }
        });
        lost
    }
}

/// Calls `visit` for a directory, and then for those in it as it is then.
fn each_dir(dir: &Arc<Mutex<Dir>>, visit: &mut dyn FnMut(&mut Dir)) {
    let below: Vec<Node> = {
        let mut dir = locked(dir);
        visit(&mut dir);
        dir.seen.values().cloned().collect()
    };
    for node in below {
        if let Node::Dir(dir) = node {
            each_dir(&dir, visit);
        }
    }
}
