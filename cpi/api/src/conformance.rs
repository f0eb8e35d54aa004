//! Promises that every [`crate::Cpi`] keeps, as tests: `cpi_api::conformance!(|dir| Subject::new(...))`.
//!
//! The expression is called with a directory and gives a [`Subject`], or the reason why this machine can't have one
//! (the test then says so and passes). Called again with the same directory it must give the same cloud, as a second
//! replica or a restarted one would see it. Whatever a test made is deleted afterwards, also when the test fails.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::instance::{AddressKind, NetworkKind, NetworkSettings};
use model::*;
use serde_json::json;

use crate::*;

/// VMs, disks, snapshots and networks that one test may make, each kind numbered from 0; also how many addresses it may use.
const OBJECTS_MAX: u8 = 8;

/// A cloud under test and what it needs to make VMs.
pub struct Subject {
    cpi: Arc<dyn Cpi>,
    image: PathBuf,
    first_address: Ipv4Addr,
}

impl Subject {
    /// Takes a cloud that is content with an empty stemcell image and any address.
    pub fn new(cpi: impl Cpi + 'static) -> Self {
        Self { cpi: Arc::new(cpi), image: PathBuf::new(), first_address: Ipv4Addr::new(10, 19, 0, 10) }
    }

    /// Gives the stemcell image that VMs are made from.
    #[must_use]
    pub fn image(mut self, image: impl Into<PathBuf>) -> Self {
        self.image = image.into();
        self
    }

    /// Gives the first of the addresses that the tests may use, in a /24 whose gateway is `.1`.
    #[must_use]
    pub fn first_address(mut self, address: Ipv4Addr) -> Self {
        self.first_address = address;
        self
    }
}

/// Makes the subject for a directory, or says why there can be none.
pub type Factory = fn(&Path) -> Result<Subject, String>;

/// One test's view of the cloud, which remembers what to delete in the end.
pub struct Bench {
    factory: Factory,
    dir: tempfile::TempDir,
    subject: Subject,
    stemcell: StemcellCid,
    next: AtomicU64,
}

impl Bench {
    /// Returns the cloud.
    pub fn cpi(&self) -> Arc<dyn Cpi> {
        self.subject.cpi.clone()
    }

    /// Returns the cloud as another replica, or this one after a restart, sees it.
    pub fn reopened(&self) -> Arc<dyn Cpi> {
        (self.factory)(self.dir.path()).expect("it could be opened before").cpi
    }

    /// Returns the context of a call under `epoch`.
    pub fn context(&self, epoch: u64) -> CallContext {
        CallContext {
            director_uuid: "conformance".into(),
            request_id: RequestId::new(format!("cpi-{}", self.next.fetch_add(1, Ordering::Relaxed))),
            epoch: Epoch(epoch),
            stemcell_api_version: Some(3),
            timeout: Duration::from_secs(30),
            log: Default::default(),
        }
    }

    /// Returns a request for the test's `n`-th VM.
    pub fn vm(&self, n: u8) -> CreateVm {
        let [a, b, c, d] = self.subject.first_address.octets();
        CreateVm {
            agent_id: AgentId::new(format!("agent-{n}")),
            stemcell: self.stemcell.clone(),
            cloud_properties: json!({}),
            networks: vec![NetworkSettings {
                name: "default".into(),
                kind: NetworkKind::Manual,
                ip: Some(IpAddr::from([a, b, c, d + n])),
                address: AddressKind::Automatic,
                prefix: "32".into(),
                netmask: Some("255.255.255.0".into()),
                gateway: Some(IpAddr::from([a, b, c, 1])),
                dns: vec![],
                defaults: vec!["dns".into(), "gateway".into()],
                cloud_properties: json!({}),
                nic_group: None,
            }],
            disks: vec![],
            env: json!({}),
            bootstrap: AgentBootstrap { endpoints: vec!["127.0.0.1:9".into()], ..Default::default() },
        }
    }

    /// Returns a request for the test's `n`-th disk.
    pub fn disk(&self, n: u8) -> CreateDisk {
        let disk_id = DiskId::new(format!("disk-id-{n}"));
        CreateDisk { disk_id, size_mib: 16, cloud_properties: json!({}), vm: None }
    }

    /// Returns a request for the test's `n`-th snapshot.
    pub fn snapshot(&self, n: u8, disk: &DiskCid) -> SnapshotDisk {
        let snapshot_id = SnapshotId::new(format!("snapshot-id-{n}"));
        let metadata = Metadata::from([("deployment".to_owned(), "web".to_owned())]);
        SnapshotDisk { snapshot_id, disk: disk.clone(), metadata }
    }

    /// Returns a request for the test's `n`-th network.
    pub fn network(&self, n: u8) -> CreateNetwork {
        CreateNetwork {
            subnet_id: SubnetId::new(format!("subnet-id-{n}")),
            range: Some(format!("10.19.{n}.0/28")),
            gateway: Some(format!("10.19.{n}.1")),
            netmask_bits: None,
            cloud_properties: json!({}),
        }
    }

    async fn sweep(&self) {
        // Far above every epoch in the tests, so that cleaning up is never fenced.
        let context = self.context(1 << 40);
        for n in 0..OBJECTS_MAX {
            let found = self.cpi().find_vm(&context, &self.vm(n).agent_id).await;
            for cid in these(found) {
                self.cpi().delete_vm(&context, &cid).await.expect("a VM of the test can be deleted");
            }
        }
        for n in 0..OBJECTS_MAX {
            let found = self.cpi().find_disk(&context, &self.disk(n).disk_id).await;
            for cid in these(found) {
                self.cpi().delete_disk(&context, &cid).await.expect("a disk of the test can be deleted");
            }
        }
        for n in 0..OBJECTS_MAX {
            let id = SnapshotId::new(format!("snapshot-id-{n}"));
            for cid in these(self.cpi().find_snapshot(&context, &id).await) {
                self.cpi()
                    .delete_snapshot(&context, &cid)
                    .await
                    .expect("a snapshot of the test can be deleted");
            }
        }
        for n in 0..OBJECTS_MAX {
            for made in these(self.cpi().find_network(&context, &self.network(n).subnet_id).await) {
                self.cpi()
                    .delete_network(&context, &made.cid)
                    .await
                    .expect("a network of the test can be deleted");
            }
        }
        self.cpi().delete_stemcell(&context, &self.stemcell).await.expect("the stemcell can be deleted");
    }
}

fn these<T>(found: Result<Found<T>, CpiError>) -> Vec<T> {
    match found {
        Ok(Found::These(found)) => found,
        Ok(Found::CannotTell) | Err(_) => Vec::new(),
    }
}

/// Runs one test of the suite on a fresh directory; used by [`conformance!`](crate::conformance!).
pub fn run<F>(factory: Factory, test: fn(Arc<Bench>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let dir = tempfile::tempdir().expect("a scratch directory");
    let subject = match factory(dir.path()) {
        Ok(subject) => subject,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let mut bench =
            Bench { factory, dir, subject, stemcell: StemcellCid::default(), next: AtomicU64::new(1) };
        let image = bench.subject.image.clone();
        let stemcell = CreateStemcell { image, cloud_properties: json!({}), tags: Metadata::new() };
        let context = bench.context(1);
        bench.stemcell =
            bench.cpi().create_stemcell(&context, stemcell).await.expect("the stemcell registers");
        let bench = Arc::new(bench);
        let outcome =
            futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(test(bench.clone()))).await;
        bench.sweep().await;
        outcome
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Runs the suite in one test, `width` promises side by side: for a cloud that is too dear to be set up for each. Names those
/// that were broken, after all have had their turn.
pub fn run_together(promises: &[(&'static str, fn())], width: usize) {
    let (turn, broken) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                while let Some((name, keep)) = promises.get(turn.fetch_add(1, Ordering::Relaxed) as usize) {
                    if std::panic::catch_unwind(keep).is_err() {
                        broken.lock().unwrap_or_else(PoisonError::into_inner).push(*name);
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(broken.is_empty(), "not kept: {broken:?}");
}

/// Makes the suite's tests for one implementation; the argument is a [`Factory`].
#[macro_export]
macro_rules! conformance {
    // What clouds promise that know only BOSH's contract: no search, no epochs, and nothing made once that was asked for twice.
    (bosh $factory:expr) => {
        $crate::conformance!(@each $factory;
            info_names_a_supported_contract
            deleting_a_vm_twice_is_fine
            an_address_is_given_once
            vms_are_created_and_deleted_in_parallel
            attaching_twice_gives_the_same_hint
            detaching_what_is_not_attached_is_fine
            deleting_a_vm_keeps_its_disks
            a_disk_moves_between_vms
            an_attached_disk_is_not_deleted
            deleting_a_disk_twice_is_fine
            a_disk_grows_and_never_shrinks
            metadata_and_reboot_need_an_existing_vm
            a_network_is_made_and_deleted);
    };
    // The suite as a list, for [`run_together`](crate::conformance::run_together).
    (list $factory:expr) => { $crate::conformance!(@all @list $factory) };
    ($factory:expr) => { $crate::conformance!(@all @each $factory); };
    (@all @$how:ident $factory:expr) => {
        $crate::conformance! { @$how $factory;
            info_names_a_supported_contract
            creating_a_vm_twice_makes_one
            a_vm_with_another_token_is_not_the_answer
            a_vm_is_found_after_its_answer_was_lost
            an_absent_vm_is_not_found
            deleting_a_vm_twice_is_fine
            an_address_is_given_once
            two_replicas_creating_one_vm_make_one
            vms_are_created_and_deleted_in_parallel
            attaching_twice_gives_the_same_hint
            detaching_what_is_not_attached_is_fine
            deleting_a_vm_keeps_its_disks
            a_disk_moves_between_vms
            an_attached_disk_is_not_deleted
            creating_a_disk_twice_makes_one
            deleting_a_disk_twice_is_fine
            a_disk_grows_and_never_shrinks
            taking_a_snapshot_twice_takes_one
            a_snapshot_outlives_vm_and_disk
            a_network_is_made_and_deleted
            making_a_network_twice_makes_one
            metadata_and_reboot_need_an_existing_vm
            an_older_epoch_is_refused
            a_search_fences_the_older_leader
            everything_survives_a_restart }
    };
    (@list $factory:expr; $($name:ident)+) => {
        [$((stringify!($name), (|| $crate::conformance::run($factory, $crate::conformance::promises::$name)) as fn())),+]
    };
    (@each $factory:expr; $($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::run($factory, $crate::conformance::promises::$name);
            }
        )+
    };
}

/// One function per promise; their names are the sentences.
#[path = "promises.rs"]
pub mod promises;
