//! Templates of jobs, kept between renderings: a deploy renders the same few jobs for each of its instances, twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::BlobDigest;
use model::instance::ReleaseRef;
use release::render::JobTemplates;

/// A job's archive, and the release that it came with: templates see the latter.
type Key = (BlobDigest, ReleaseRef);

/// Keyed by content address, so an entry is never wrong. Bounded by bytes: a job may hold up to 64 MiB of templates.
pub struct TemplateCache {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

struct Kept {
    templates: BTreeMap<Key, Arc<JobTemplates>>,
    bytes: usize,
}

impl TemplateCache {
    /// Returns an empty cache for templates of `bytes_max` bytes together.
    pub const fn new(bytes_max: usize) -> Self {
        Self { kept: Mutex::new(Kept { templates: BTreeMap::new(), bytes: 0 }), bytes_max }
    }

    /// Returns the templates of the archive in `blob`, if they are kept.
    pub fn get(&self, blob: &BlobDigest, release: &ReleaseRef) -> Option<Arc<JobTemplates>> {
        self.lock().templates.get(&(blob.clone(), release.clone())).cloned()
    }

    /// Keeps the templates of the archive in `blob`, unless they alone are too large.
    pub fn put(&self, blob: &BlobDigest, templates: &Arc<JobTemplates>) {
        let bytes = bytes_of(templates);
        let mut kept = self.lock();
        let key = (blob.clone(), templates.release.clone());
        if bytes > self.bytes_max || kept.templates.contains_key(&key) {
            return;
        }
        if kept.bytes + bytes > self.bytes_max {
            // The jobs of a deploy fit in many times over: what is thrown away is mostly that of earlier ones.
            *kept = Kept { templates: BTreeMap::new(), bytes: 0 };
        }
        kept.bytes += bytes;
        kept.templates.insert(key, templates.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(job: &JobTemplates) -> usize {
    let texts = job.templates.iter().map(|t| t.text.len() + t.source.len() + t.destination.len());
    job.monit.len() + texts.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(bytes: usize, version: &str) -> Arc<JobTemplates> {
        let release = ReleaseRef { name: "r".into(), version: version.into() };
        Arc::new(JobTemplates { name: "j".into(), release, monit: vec![b'#'; bytes], templates: Vec::new() })
    }

    #[test]
    fn templates_are_kept_within_their_bytes() {
        let cache = TemplateCache::new(100);
        let has = |blob: &str, job: &JobTemplates| cache.get(&blob.into(), &job.release).is_some();
        let (one, two, large) = (job(60, "1"), job(30, "2"), job(101, "1"));
        cache.put(&"a".into(), &one);
        cache.put(&"a".into(), &two);
        assert!(has("a", &one) && has("a", &two), "one archive in two releases is two entries");
        cache.put(&"c".into(), &large);
        assert!(!has("c", &large) && has("a", &one), "what is too large displaces nothing");
        cache.put(&"b".into(), &two);
        assert!(has("b", &two) && !has("a", &one), "there was no room for all of them");
    }
}
