//! Stemcells: one row per CPI.

use model::stemcell::StemcellRecord;
use model::*;

use super::deployment;
use super::event::{Audit, audit};
use super::task::working;
use super::tx::{Tx, invalid, not_found};
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
        Some(stored) if stored.retired => {
            return Err(invalid(format!("stemcell {slug}"), "it is being deleted"));
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

/// `StemcellRetire`; `which` is name and version. Whoever has planned with it and not yet committed plans again.
pub(super) fn retire(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    which: (&String, &Version),
) -> Result<Outcome, Refusal> {
    working(tx, by)?;
    let (name, version) = which;
    let rows: Vec<StemcellRecord> = (tx.state().stemcells().into_iter())
        .filter(|row| row.stemcell.name == *name && row.stemcell.version == *version)
        .collect();
    if rows.is_empty() {
        return Err(not_found("stemcell", format!("{name}/{version}")));
    }
    refuse_if_used(tx, name, version)?;
    for row in rows {
        let key = (name.clone(), version.clone(), row.stemcell.cpi.clone());
        tx.put(&STEMCELLS, &key, &StemcellRecord { retired: true, ..row });
    }
    deployment::bump_in_work(tx);
    Ok(Outcome::Done)
}

fn refuse_if_used(tx: &Tx<'_>, name: &str, version: &Version) -> Result<(), Refusal> {
    match tx.state().users_of_stemcell(name, version).first() {
        Some(user) => {
            let slug = format!("{name}/{version}");
            Err(Refusal::InUse { what: "stemcell".into(), name: slug, by: user.to_string() })
        }
        None => Ok(()),
    }
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
    refuse_if_used(tx, name, version)?;
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
