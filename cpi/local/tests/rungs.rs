//! What a probe says of this machine is what a cloud does here.

mod common;

use cpi_local::{Isolation, LocalCpi, OpenError, Rung, probe};

#[test]
fn the_lowest_rung_works_everywhere_and_auto_stands_on_the_best_that_does() {
    let dir = tempfile::tempdir().unwrap();
    let options = common::options(dir.path(), Isolation::Auto);
    let reports = probe(&options);
    assert_eq!(reports.iter().map(|report| report.rung).collect::<Vec<_>>(), Rung::ALL);
    assert!(reports.iter().all(|report| !report.why.is_empty()), "{reports:?}");
    let process = reports.iter().find(|report| report.rung == Rung::Process).unwrap();
    assert!(process.ok, "{process:?}");
    let best = Isolation::Auto.stands_on(&reports);
    assert_eq!(Some(LocalCpi::open(options).unwrap().rung()), best, "{reports:?}");
    // Each rung can be had exactly if the probe says so.
    for report in &reports {
        let opened = LocalCpi::open(common::options(dir.path(), Isolation::Exactly(report.rung)));
        match opened {
            Ok(cloud) => assert!(report.ok && cloud.rung() == report.rung, "{report:?}"),
            Err(OpenError::NoRung(refused)) => {
                assert!(!report.ok && refused.len() == 1 && refused[0].rung == report.rung, "{report:?}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn where_nothing_can_be_written_every_rung_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = common::options(dir.path(), Isolation::Auto);
    // A file is no directory, also for root.
    options.root = dir.path().join("stand-in");
    let reports = probe(&options);
    assert!(reports.iter().all(|report| !report.ok && !report.why.is_empty()), "{reports:?}");
    assert!(LocalCpi::open(options).is_err());
}
