#![allow(missing_docs, reason = "each name is the promise")]
//! What is promised. See the parent module for how these run.

use std::sync::Arc;

use model::*;

use super::Bench;
use crate::*;

/// Returns whether a cloud that can search has found nothing.
fn finds_nothing<T: PartialEq>(answer: &Result<Found<T>, CpiError>) -> bool {
    matches!(answer, Ok(Found::CannotTell)) || *answer == Ok(Found::none())
}

pub async fn info_names_a_supported_contract(bench: Arc<Bench>) {
    assert!(bench.cpi().info().await.expect("info answers").api_version >= 2);
}

pub async fn creating_a_vm_twice_makes_one(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let first = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created");
    let second = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("a repeat is answered");
    assert_eq!(first, second);
    cpi.delete_vm(&bench.context(1), &first.cid).await.expect("deleted");
    assert!(
        !cpi.has_vm(&bench.context(1), &first.cid).await.expect("answers"),
        "the repeat made a second VM"
    );
}

pub async fn a_vm_with_another_token_is_not_the_answer(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let first = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created");
    let mut other = bench.vm(1);
    other.bootstrap.token.push_str("-renewed");
    match cpi.create_vm(&bench.context(1), other).await {
        // Another one beside it: then it is found, too.
        Ok(second) => assert_ne!(first.cid, second.cid, "its agent would not be let in"),
        Err(error) => assert!(error.ok_to_retry, "another try looks for it first: {error}"),
    }
    let found = cpi.find_vm(&bench.context(1), &bench.vm(1).agent_id).await.expect("answers");
    let Found::These(found) = found else { panic!("it can tell") };
    assert!(found.contains(&first.cid), "it is there to be found: {found:?}");
}

pub async fn a_vm_is_found_after_its_answer_was_lost(bench: Arc<Bench>) {
    let lost = bench.cpi().create_vm(&bench.context(1), bench.vm(1)).await.expect("created");
    let found = bench.reopened().find_vm(&bench.context(2), &bench.vm(1).agent_id).await.expect("answers");
    assert_eq!(found, Found::one(lost.cid));
}

pub async fn an_absent_vm_is_not_found(bench: Arc<Bench>) {
    let found = bench.cpi().find_vm(&bench.context(1), &"nobody".into()).await.expect("answers");
    assert_eq!(found, Found::none());
    assert!(!bench.cpi().has_vm(&bench.context(1), &"vm-nobody".into()).await.expect("answers"));
}

pub async fn deleting_a_vm_twice_is_fine(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let vm = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    assert!(cpi.has_vm(&bench.context(1), &vm).await.expect("answers"));
    for _ in 0..2 {
        cpi.delete_vm(&bench.context(1), &vm).await.expect("deleted, or gone already");
    }
    assert!(!cpi.has_vm(&bench.context(1), &vm).await.expect("answers"));
    assert!(finds_nothing(&cpi.find_vm(&bench.context(1), &bench.vm(1).agent_id).await));
}

pub async fn an_address_is_given_once(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let first = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    let thief = CreateVm { networks: bench.vm(1).networks, ..bench.vm(2) };
    let error = cpi.create_vm(&bench.context(1), thief.clone()).await.expect_err("the address is taken");
    assert_eq!(error.kind, CpiErrorKind::VmCreationFailed);
    let left = cpi.find_vm(&bench.context(1), &thief.agent_id).await;
    assert!(finds_nothing(&left), "the refusal left a VM");
    cpi.delete_vm(&bench.context(1), &first).await.expect("deleted");
    cpi.create_vm(&bench.context(1), thief).await.expect("the address is free again");
}

pub async fn two_replicas_creating_one_vm_make_one(bench: Arc<Bench>) {
    let (here, there) = (bench.cpi(), bench.reopened());
    let (a, b) = (bench.context(1), bench.context(1));
    let (one, two) = tokio::join!(here.create_vm(&a, bench.vm(1)), there.create_vm(&b, bench.vm(1)));
    assert_eq!(one.expect("created").cid, two.expect("created").cid);
}

pub async fn vms_are_created_and_deleted_in_parallel(bench: Arc<Bench>) {
    let made = futures::future::join_all((1..=6).map(|n| {
        let bench = bench.clone();
        async move { bench.cpi().create_vm(&bench.context(1), bench.vm(n)).await.expect("created").cid }
    }))
    .await;
    let distinct: std::collections::BTreeSet<&VmCid> = made.iter().collect();
    assert_eq!(distinct.len(), made.len());
    futures::future::join_all(made.iter().map(|cid| {
        let bench = bench.clone();
        async move { bench.cpi().delete_vm(&bench.context(1), cid).await.expect("deleted") }
    }))
    .await;
    for cid in &made {
        assert!(!bench.cpi().has_vm(&bench.context(1), cid).await.expect("answers"));
    }
}

pub async fn attaching_twice_gives_the_same_hint(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let vm = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    let first = cpi.attach_disk(&bench.context(1), &vm, &disk).await.expect("attached");
    let second =
        bench.reopened().attach_disk(&bench.context(1), &vm, &disk).await.expect("a repeat is answered");
    assert_eq!(first, second);
    assert!(first.0.is_string() || first.0.is_object(), "a hint is text or a map: {first:?}");
    let absent =
        cpi.attach_disk(&bench.context(1), &vm, &"disk-nowhere".into()).await.expect_err("no such disk");
    assert_eq!(absent.kind, CpiErrorKind::DiskNotFound);
    let absent =
        cpi.attach_disk(&bench.context(1), &"vm-nowhere".into(), &disk).await.expect_err("no such VM");
    assert_eq!(absent.kind, CpiErrorKind::VmNotFound);
}

pub async fn detaching_what_is_not_attached_is_fine(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let vm = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    cpi.detach_disk(&bench.context(1), &vm, &disk).await.expect("never attached");
    cpi.attach_disk(&bench.context(1), &vm, &disk).await.expect("attached");
    for _ in 0..2 {
        cpi.detach_disk(&bench.context(1), &vm, &disk).await.expect("detached, or already so");
    }
    cpi.delete_disk(&bench.context(1), &disk).await.expect("a detached disk can go");
    cpi.detach_disk(&bench.context(1), &vm, &disk).await.expect("no disk, nothing attached");
    cpi.detach_disk(&bench.context(1), &"vm-nowhere".into(), &disk).await.expect("no VM, nothing attached");
}

pub async fn deleting_a_vm_keeps_its_disks(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let vm = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    cpi.attach_disk(&bench.context(1), &vm, &disk).await.expect("attached");
    cpi.delete_vm(&bench.context(1), &vm).await.expect("deleted");
    assert!(cpi.has_disk(&bench.context(1), &disk).await.expect("answers"));
    let next = cpi.create_vm(&bench.context(1), bench.vm(2)).await.expect("created").cid;
    cpi.attach_disk(&bench.context(1), &next, &disk).await.expect("the disk is free for the next VM");
}

pub async fn a_disk_moves_between_vms(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let from = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    let to = cpi.create_vm(&bench.context(1), bench.vm(2)).await.expect("created").cid;
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    cpi.attach_disk(&bench.context(1), &from, &disk).await.expect("attached");
    cpi.attach_disk(&bench.context(1), &to, &disk).await.expect_err("one VM at a time");
    cpi.detach_disk(&bench.context(1), &from, &disk).await.expect("detached");
    cpi.attach_disk(&bench.context(1), &to, &disk).await.expect("attached to the other");
    cpi.detach_disk(&bench.context(1), &from, &disk).await.expect("a late repeat is fine");
    cpi.attach_disk(&bench.context(1), &from, &disk).await.expect_err("the late repeat freed it");
}

pub async fn an_attached_disk_is_not_deleted(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let vm = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    cpi.attach_disk(&bench.context(1), &vm, &disk).await.expect("attached");
    cpi.delete_disk(&bench.context(1), &disk).await.expect_err("in use");
    assert!(cpi.has_disk(&bench.context(1), &disk).await.expect("answers"));
}

pub async fn creating_a_disk_twice_makes_one(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let first = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    let second =
        bench.reopened().create_disk(&bench.context(1), bench.disk(1)).await.expect("a repeat is answered");
    assert_eq!(first, second);
    let found = cpi.find_disk(&bench.context(1), &bench.disk(1).disk_id).await;
    assert_eq!(found, Ok(Found::one(first)));
}

pub async fn deleting_a_disk_twice_is_fine(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    assert!(cpi.has_disk(&bench.context(1), &disk).await.expect("answers"));
    for _ in 0..2 {
        cpi.delete_disk(&bench.context(1), &disk).await.expect("deleted, or gone already");
    }
    assert!(!cpi.has_disk(&bench.context(1), &disk).await.expect("answers"));
    assert!(finds_nothing(&cpi.find_disk(&bench.context(1), &bench.disk(1).disk_id).await));
}

pub async fn a_disk_grows_and_never_shrinks(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    match cpi.resize_disk(&bench.context(1), &disk, 32).await {
        // The caller copies instead; there is nothing more to promise.
        Err(error) if error.kind == CpiErrorKind::NotImplemented => return,
        grown => grown.expect("grown"),
    }
    cpi.resize_disk(&bench.context(1), &disk, 32).await.expect("a repeat is fine");
    cpi.resize_disk(&bench.context(1), &disk, 16).await.expect_err("shrinking loses data");
    let absent =
        cpi.resize_disk(&bench.context(1), &"disk-nowhere".into(), 64).await.expect_err("no such disk");
    assert_eq!(absent.kind, CpiErrorKind::DiskNotFound);
}

/// Takes the bench's first snapshot of a disk; none where the cloud has no snapshots: there is nothing more to promise then.
async fn taken(bench: &Bench, cpi: &dyn Cpi, disk: &DiskCid) -> Option<SnapshotCid> {
    match cpi.snapshot_disk(&bench.context(1), bench.snapshot(1, disk)).await {
        Err(error) if error.kind == CpiErrorKind::NotImplemented => None,
        taken => Some(taken.expect("taken")),
    }
}

pub async fn taking_a_snapshot_twice_takes_one(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    let Some(first) = taken(&bench, &*cpi, &disk).await else { return };
    let second = taken(&bench, &*bench.reopened(), &disk).await.expect("a repeat is answered");
    assert_eq!(first, second);
    let id = bench.snapshot(1, &disk).snapshot_id;
    assert_eq!(cpi.find_snapshot(&bench.context(1), &id).await, Ok(Found::one(first.clone())));
    let absent = cpi.snapshot_disk(&bench.context(1), bench.snapshot(2, &"disk-nowhere".into())).await;
    assert_eq!(absent.expect_err("no such disk").kind, CpiErrorKind::DiskNotFound);
    for _ in 0..2 {
        cpi.delete_snapshot(&bench.context(1), &first).await.expect("deleted, or gone already");
    }
    assert_eq!(cpi.find_snapshot(&bench.context(1), &id).await, Ok(Found::none()));
    assert!(
        cpi.has_disk(&bench.context(1), &disk).await.expect("answers"),
        "the disk went with its snapshot"
    );
}

pub async fn a_snapshot_outlives_vm_and_disk(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let vm = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    cpi.attach_disk(&bench.context(1), &vm, &disk).await.expect("attached");
    let Some(snapshot) = taken(&bench, &*cpi, &disk).await else { return };
    cpi.attach_disk(&bench.context(1), &vm, &disk).await.expect("it is still attached");
    cpi.delete_vm(&bench.context(1), &vm).await.expect("deleted");
    cpi.delete_disk(&bench.context(1), &disk).await.expect("deleted");
    let id = bench.snapshot(1, &disk).snapshot_id;
    let found = bench.reopened().find_snapshot(&bench.context(1), &id).await;
    assert_eq!(found, Ok(Found::one(snapshot.clone())));
    // A repeat of the call, long after, finds it without the disk.
    assert_eq!(taken(&bench, &*cpi, &disk).await, Some(snapshot));
}

/// Has the bench's `n`-th network made; none where people make the cloud's networks: there is nothing more to promise then.
async fn network_made(bench: &Bench, cpi: &dyn Cpi, request: CreateNetwork) -> Option<MadeSubnet> {
    match cpi.create_network(&bench.context(1), request).await {
        Err(error) if error.kind == CpiErrorKind::NotImplemented => None,
        made => Some(made.expect("made")),
    }
}

pub async fn a_network_is_made_and_deleted(bench: Arc<Bench>) {
    let (cpi, asked) = (bench.cpi(), bench.network(1));
    let Some(made) = network_made(&bench, &*cpi, asked.clone()).await else { return };
    assert!(!made.cid.as_str().is_empty());
    assert_eq!((Some(&made.range), made.gateway.as_ref()), (asked.range.as_ref(), asked.gateway.as_ref()));
    assert!(made.cloud_properties.is_object(), "VMs in it are made with them: {:?}", made.cloud_properties);
    let free = CreateNetwork { range: None, gateway: None, netmask_bits: Some(26), ..bench.network(2) };
    let chosen = network_made(&bench, &*cpi, free).await.expect("it can make one");
    let (range, bits) = ip::Block::parse_cidr(&chosen.range).expect("a range");
    let gateway = chosen.gateway.as_ref().and_then(|gateway| gateway.parse().ok()).expect("a gateway");
    assert!(bits == 26 && range.contains(gateway), "{chosen:?}");
    for _ in 0..2 {
        for cid in [&made.cid, &chosen.cid] {
            cpi.delete_network(&bench.context(1), cid).await.expect("deleted, or gone already");
        }
    }
    assert!(finds_nothing(&cpi.find_network(&bench.context(1), &asked.subnet_id).await));
}

pub async fn making_a_network_twice_makes_one(bench: Arc<Bench>) {
    let (cpi, asked) = (bench.cpi(), bench.network(1));
    let Some(first) = network_made(&bench, &*cpi, asked.clone()).await else { return };
    let again = bench.reopened();
    assert_eq!(again.find_network(&bench.context(1), &asked.subnet_id).await, Ok(Found::one(first.clone())));
    assert_eq!(network_made(&bench, &*again, asked).await, Some(first.clone()));
    let late = again.create_network(&bench.context(0), bench.network(2)).await;
    assert_eq!(late.expect_err("fenced").kind, CpiErrorKind::Fenced);
    cpi.delete_network(&bench.context(1), &first.cid).await.expect("deleted");
}

pub async fn metadata_and_reboot_need_an_existing_vm(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let vm = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    let tags = Metadata::from([("deployment".to_owned(), "web".to_owned())]);
    for _ in 0..2 {
        cpi.set_vm_metadata(&bench.context(1), &vm, &tags).await.expect("set");
    }
    cpi.reboot_vm(&bench.context(1), &vm).await.expect("rebooted");
    assert!(cpi.has_vm(&bench.context(1), &vm).await.expect("answers"));
    let nowhere: VmCid = "vm-nowhere".into();
    let errors = [
        cpi.set_vm_metadata(&bench.context(1), &nowhere, &tags).await,
        cpi.reboot_vm(&bench.context(1), &nowhere).await,
    ];
    for error in errors {
        assert_eq!(error.expect_err("no such VM").kind, CpiErrorKind::VmNotFound);
    }
}

pub async fn an_older_epoch_is_refused(bench: Arc<Bench>) {
    let (old, new) = (bench.cpi(), bench.reopened());
    let vm = old.create_vm(&bench.context(4), bench.vm(1)).await.expect("created").cid;
    new.set_vm_metadata(&bench.context(5), &vm, &Metadata::new()).await.expect("the new leader speaks");
    let late = bench.context(4);
    let kinds = [
        old.create_vm(&late, bench.vm(2)).await.map(drop).expect_err("fenced").kind,
        old.delete_vm(&late, &vm).await.expect_err("fenced").kind,
        old.create_disk(&late, bench.disk(1)).await.map(drop).expect_err("fenced").kind,
        old.snapshot_disk(&late, bench.snapshot(1, &"d".into())).await.map(drop).expect_err("fenced").kind,
    ];
    assert_eq!(kinds, [CpiErrorKind::Fenced; 4]);
    assert!(new.has_vm(&bench.context(5), &vm).await.expect("answers"), "the old leader deleted a VM");
    assert_eq!(new.find_vm(&bench.context(5), &bench.vm(2).agent_id).await, Ok(Found::none()));
}

pub async fn a_search_fences_the_older_leader(bench: Arc<Bench>) {
    let (old, new) = (bench.cpi(), bench.reopened());
    let (early, late, agent) = (bench.context(7), bench.context(8), bench.vm(1).agent_id);
    let (created, found) = tokio::join!(old.create_vm(&early, bench.vm(1)), new.find_vm(&late, &agent));
    match (created, found.expect("answers")) {
        (Ok(vm), found) if found == Found::one(vm.cid.clone()) => {}
        (Err(error), found) if found == Found::none() => assert_eq!(error.kind, CpiErrorKind::Fenced),
        // Nothing is a promise here: what was under way may not appear afterwards.
        (created, found) => panic!("create gave {created:?} and the search {found:?}"),
    }
}

pub async fn everything_survives_a_restart(bench: Arc<Bench>) {
    let cpi = bench.cpi();
    let vm = cpi.create_vm(&bench.context(1), bench.vm(1)).await.expect("created").cid;
    let disk = cpi.create_disk(&bench.context(1), bench.disk(1)).await.expect("created");
    let hint = cpi.attach_disk(&bench.context(3), &vm, &disk).await.expect("attached");
    drop(cpi);
    let after = bench.reopened();
    assert!(after.has_vm(&bench.context(3), &vm).await.expect("answers"));
    assert_eq!(
        after.find_disk(&bench.context(3), &bench.disk(1).disk_id).await,
        Ok(Found::one(disk.clone()))
    );
    assert_eq!(after.attach_disk(&bench.context(3), &vm, &disk).await, Ok(hint));
    let error = after.delete_vm(&bench.context(2), &vm).await.expect_err("the epoch is remembered too");
    assert_eq!(error.kind, CpiErrorKind::Fenced);
    after.delete_vm(&bench.context(3), &vm).await.expect("a VM of an earlier process can be deleted");
}
