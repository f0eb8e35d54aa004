//! Stemcells: one row per CPI.

use model::stemcell::StemcellRecord;
use model::*;

use super::event::{Audit, audit};
use super::task::working;
use super::tx::{Tx, not_found};
use crate::command::{Outcome, Refusal};
use crate::tables::*;

/// `StemcellPut`. The same image under another cloud id (after `--fix`) replaces the row; another image is refused.
pub(super) fn put(tx: &mut Tx<'_>, by: (TaskId, Epoch), record: &StemcellRecord) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    let stemcell = &record.stemcell;
    let key = (stemcell.name.clone(), stemcell.version.clone(), stemcell.cpi.clone());
    let slug = format!("{}/{}", stemcell.name, stemcell.version);
    match tx.get(&STEMCELLS, &key) {
        Some(stored) if stored.digest != record.digest => {
            return Err(Refusal::Exists { what: "stemcell".into(), name: slug });
        }
        Some(stored) if (StemcellRecord { uploaded_at: stored.uploaded_at, ..record.clone() }) == stored => {}
        _ => {
            tx.put(&STEMCELLS, &key, record);
            let object_name = Some(slug);
            audit(
                tx,
                Audit {
                    task: Some(&task),
                    action: "create",
                    object_type: "stemcell",
                    object_name,
                    ..Audit::default()
                },
            );
        }
    }
    Ok(Outcome::Done)
}

/// `StemcellDelete`; `which` is name, version and CPI.
pub(super) fn delete(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    which: (&String, &Version, &CpiName),
) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    let (name, version, cpi) = which;
    let key = (name.clone(), version.clone(), cpi.clone());
    let slug = format!("{name}/{version}");
    if !tx.has(&STEMCELLS, &key) {
        return Err(not_found("stemcell", slug));
    }
    if let Some(user) = tx.state().deployments_with_stemcell(name, version).first() {
        return Err(Refusal::InUse { what: "stemcell".into(), name: slug, by: user.to_string() });
    }
    tx.delete(&STEMCELLS, &key);
    let object_name = Some(slug);
    audit(
        tx,
        Audit {
            task: Some(&task),
            action: "delete",
            object_type: "stemcell",
            object_name,
            ..Audit::default()
        },
    );
    Ok(Outcome::Done)
}
