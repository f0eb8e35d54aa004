//! What is compiled for an export, and what can't be exported.

use model::instance::ReleaseRef;
use model::plan::Plan;
use model::stemcell::StemcellVersion;
use model::step::Action;
use model::task::{DigestKind, ReleaseExport, TaskError};
use serde_json::json;

use crate::director::{Director, cloud_config, group, is_empty, manifest};
use crate::perform::{Faults, perform};

fn export(version: &str, stemcell: (&str, &str), jobs: &[&str]) -> ReleaseExport {
    let (os, stemcell_version) = stemcell;
    ReleaseExport {
        release: ReleaseRef { name: "golden".into(), version: version.into() },
        stemcell: StemcellVersion { os: os.into(), version: stemcell_version.into() },
        jobs: jobs.iter().map(|job| (*job).into()).collect(),
        digest: DigestKind::Sha256,
    }
}

const OTHER: (&str, &str) = ("toronto-os", "1.1");

/// A director whose deployment has been deployed on stemcell 1, and everything that it needs was compiled for that.
fn deployed() -> Director {
    let mut director = Director::new(&cloud_config());
    director.deploy(&manifest(&[group(1)]));
    director
}

#[track_caller]
fn refusal(director: &mut Director, export: &ReleaseExport) -> (u32, String) {
    match director.export(export) {
        Err(TaskError { code, message }) => (code, message),
        Ok(plan) => panic!("{plan:?}"),
    }
}

fn compiles(plan: &Plan) -> Vec<String> {
    let of_step = |action: &Action| match action {
        Action::CompilePackage { package, .. } => {
            Some(format!("{} for {}/{}", package.name, package.os, package.stemcell_version))
        }
        _ => None,
    };
    plan.units().flat_map(|unit| &unit.steps).filter_map(|step| of_step(&step.action)).collect()
}

#[test]
fn what_is_compiled_already_is_not_compiled_again() {
    let mut director = deployed();
    assert_eq!(director.export(&export("1", ("toronto-os", "1"), &["server"])).unwrap(), None);
}

/// The deployment itself stays as it is: the plan is about workers, and stores nothing of a deploy.
#[test]
fn what_is_missing_is_compiled_on_workers_with_what_it_needs_first() {
    let mut director = deployed();
    let plan = director.export(&export("1", OTHER, &["server"])).unwrap().unwrap();
    let packages = ["base-lib", "mid-tool", "top-app"];
    assert_eq!(compiles(&plan), packages.map(|package| format!("{package} for toronto-os/1.1")));
    assert!(
        plan.targets
            .iter()
            .all(|target| target.compilation && target.spec.stemcell.version.as_str() == "1.1")
    );
    assert_eq!(plan.reservations.len(), plan.targets.len(), "each worker has its address");
    assert!(plan.record.is_none() && plan.dns_subjects.is_empty());
    let performed = perform(&mut director.world, &plan, &Faults::default());
    assert_eq!(performed.error, None);
    assert_eq!(director.export(&export("1", OTHER, &["server"])).unwrap(), None);
    assert!(director.world.instances.iter().all(|instance| !instance.compilation), "the workers are gone");
    assert!(is_empty(&director.deploy(&manifest(&[group(1)]))), "nothing of the deployment has changed");
}

#[test]
fn jobs_without_packages_need_no_workers() {
    let mut director = deployed();
    assert_eq!(director.export(&export("1", OTHER, &["dump"])).unwrap(), None);
}

#[test]
fn packages_come_in_the_order_that_bosh_has() {
    let director = deployed();
    let release = &director.world.releases[0];
    let stemcell = StemcellVersion { os: "toronto-os".into(), version: "1".into() };
    let names = |jobs: &[&str]| -> Vec<String> {
        let wish = export("1", ("toronto-os", "1"), jobs);
        let exported = scheduler::exported(release, &wish, &stemcell).unwrap();
        let jobs = exported.jobs.iter().map(|job| job.name.to_string());
        jobs.chain(exported.packages.iter().map(|(package, _)| package.name.to_string())).collect()
    };
    let all = ["check", "client", "dump", "server", "store", "base-lib", "mid-tool", "top-app"];
    assert_eq!(names(&[]), all);
    assert_eq!(names(&["server"]), ["server", "top-app", "base-lib", "mid-tool"]);
    assert_eq!(names(&["server", "check"]), ["check", "server", "base-lib", "top-app", "mid-tool"]);
}

#[test]
fn what_cannot_be_exported_is_told() {
    let mut director = deployed();
    let stemcell = ("toronto-os", "1");
    for (wish, code, text) in [
        (export("9", stemcell, &[]), 30006, "Release version 'golden/9' doesn't exist"),
        (
            export("2", stemcell, &[]),
            30011,
            "Release version 'golden/2' not found in deployment 'p' manifest",
        ),
        (export("1", ("nope", "1"), &[]), 50003, "Stemcell version '1' for OS 'nope' doesn't exist"),
        (export("1", stemcell, &["nope"]), 70009, "Job 'nope' doesn't exist in release 'golden/1'"),
    ] {
        assert_eq!(refusal(&mut director, &wish), (code, text.to_owned()));
    }
    let mut other = export("1", stemcell, &[]);
    other.release.name = "nope".into();
    assert_eq!(refusal(&mut director, &other), (30005, "Release 'nope' doesn't exist".to_owned()));
    let (code, _) = refusal(&mut Director::new(&cloud_config()), &export("1", stemcell, &[]));
    assert_eq!(code, 440001, "it was never deployed");
}

/// What has no source is exported for the stemcell that it was compiled for, and for no other one, though a deploy would use
/// it there.
#[test]
fn without_source_only_the_exact_stemcell_will_do() {
    let mut director = deployed();
    director.world.releases[0].packages.iter_mut().for_each(|package| package.source = None);
    assert_eq!(director.export(&export("1", ("toronto-os", "1"), &[])).unwrap(), None);
    let (code, text) = refusal(&mut director, &export("1", OTHER, &["server"]));
    assert_eq!(code, 60001);
    assert!(text.starts_with("Can't export release 'golden/1' for 'toronto-os/1.1'."), "{text}");
    assert_eq!(text.matches("compiled for toronto-os/1)").count(), 3, "{text}");
    director.world.compiled.clear();
    assert_eq!(refusal(&mut director, &export("1", OTHER, &["server"])).0, 60001);
}

/// A manifest that says where its release was exported from has no other compiled form.
#[test]
fn an_exported_release_is_exported_from_where_it_came() {
    let mut director = deployed();
    let mut listed = manifest(&[group(1)]);
    listed["releases"][0]["exported_from"] = json!([{"os": "toronto-os", "version": "1"}]);
    director.deploy(&listed);
    assert_eq!(director.export(&export("1", ("toronto-os", "1"), &["server"])).unwrap(), None);
    assert_eq!(refusal(&mut director, &export("1", OTHER, &["server"])).0, 60001);
    director.world.compiled.retain(|package| package.key.name.as_str() != "mid-tool");
    assert_eq!(refusal(&mut director, &export("1", ("toronto-os", "1"), &["server"])).0, 60003);
}
