//! Whatever is sent: it is refused with a reason, no director dies of it, no lock is left.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::client::Client;
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::deploying::DEPLOY_LIMIT;
use chaos_tests::forge::Forge;
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use chaos_tests::workload::{Hello, Net, ReleaseFolder, one_job, upload_base, upload_hello, write_file};
use dctl::client::Patience;
use tar::EntryType;

/// Runs `dctl`, which must fail with this exit code and say this; then the fleet must be as well as before.
async fn refused(
    cluster: &mut Cluster,
    case: &str,
    arguments: &[&str],
    exit: i32,
    reason: &str,
) -> Result<()> {
    let output = cluster.dctl().args(arguments).output().await?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(exit), "{case}: {}\n{stdout}{stderr}", output.status);
    ensure!(stderr.contains(reason), "{case}: `{reason}` is not said:\n{stdout}{stderr}");
    println!("{case}: {}", stderr.lines().next().unwrap_or_default());
    is_well(cluster, case).await
}

async fn is_well(cluster: &mut Cluster, case: &str) -> Result<()> {
    cluster.check_alive().with_context(|| format!("after {case}"))?;
    let client = cluster.client()?;
    wait::until_true(&format!("no lock is left by {case}"), SETTLE, async || {
        Ok(client.locks().await?.is_empty())
    })
    .await
}

/// A change of hello's manifest, and what must be said about it.
struct BadManifest {
    case: &'static str,
    from: &'static str,
    to: &'static str,
    reason: &'static str,
}

const fn manifest(
    case: &'static str,
    from: &'static str,
    to: &'static str,
    reason: &'static str,
) -> BadManifest {
    BadManifest { case, from, to, reason }
}

const BAD_MANIFESTS: &[BadManifest] = &[
    manifest("no YAML", "name: hello\n", "name: [\n", ""),
    manifest("no name", "name: hello\n", "title: hello\n", "'name'"),
    manifest("a wrong type", "instances: 2", "instances: many", "instances"),
    manifest(
        "an unknown release",
        "{name: hello, version: latest}",
        "{name: hello, version: latest}, {name: other, version: '1'}",
        "other",
    ),
    manifest("an unknown version", "version: latest", "version: '77'", "hello/77"),
    manifest("an unknown job", "- name: hello\n    release", "- name: nobody\n    release", "'nobody'"),
    manifest("a missing stemcell", "os: directorate-host", "os: plan9", "plan9"),
    manifest("an unknown zone", "azs: [z1, z2]", "azs: [z1, z9]", "must specify availability zone"),
    manifest("an unknown VM type", "vm_type: small", "vm_type: huge", "'huge'"),
    manifest("an unknown network", "networks: [{name: default}]", "networks: [{name: other}]", "'other'"),
    manifest("a full network", "instances: 2", "instances: 600", "available"),
    manifest(
        "a static address outside",
        "networks: [{name: default}]",
        "networks: [{name: default, static_ips: [10.9.9.9, 10.9.9.10]}]",
        "10.9.9.9",
    ),
    manifest("a template that raises", "behaviour: healthy", "behaviour: confused", "behaviour must be"),
];

#[tokio::test]
async fn manifests_that_make_no_sense_are_refused() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    upload_hello(&cluster, Net::Loopback(cluster.loopback_net())).await?;
    let good = Hello::default().manifest();
    for BadManifest { case, from, to, reason } in BAD_MANIFESTS {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{case}");
        let file = write_file(&cluster, "bad.yml", &text)?;
        let exit = if *case == "no YAML" { 2 } else { 1 };
        refused(&mut cluster, case, &["-d", "hello", "deploy", &file], exit, reason).await?;
    }
    // Also past dctl, which reads manifests itself: nonsense is the directors' to refuse.
    let client = cluster.client()?;
    let refusal = client.deploy("name: [", "no YAML at all").await.expect_err("it is no YAML");
    println!("no YAML at all: {refusal:#}");
    is_well(&mut cluster, "no YAML at all").await?;
    assert_eq!(client.lost().await?, Vec::new());
    assert_eq!(
        fs::read_dir(cluster.cloud_root().join("vms"))?.count(),
        0,
        "nothing was made for any of them"
    );
    cluster.finish().await
}

#[tokio::test]
async fn damaged_and_hostile_archives_are_refused() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let good = ReleaseFolder::copy_of_hello(cluster.folder())?.archive()?;
    for (case, archive, reason) in bad_archives(&cluster, &good)? {
        let archive = archive.to_str().context("UTF-8")?;
        refused(&mut cluster, case, &["upload-release", archive], 1, reason).await?;
    }
    // A circle of packages: in a folder it is dctl's to refuse, in an archive the directors'.
    let circle = ReleaseFolder::new(&cluster, "circle")?;
    circle.package("a", &["b"], "true")?;
    circle.package("b", &[], "true")?;
    circle.job("circle", &["a"], "")?;
    let straight = circle.archive()?;
    circle.package("b", &["a"], "true")?;
    let error = circle.archive().expect_err("a needs b needs a").to_string();
    assert!(error.contains("in a circle: a -> b -> a"), "{error}");
    let bent = Forge::from(&straight, |name, content| match name {
        "release.MF" => with_circle(&content),
        _ => content,
    })?;
    let bent = bent.write(cluster.folder().join("bent.tgz"))?;
    refused(
        &mut cluster,
        "a circle of packages",
        &["upload-release", bent.to_str().context("UTF-8")?],
        1,
        "in a circle",
    )
    .await?;
    assert!(
        cluster.operate(&["--json", "releases"]).await?.contains("\"rows\": []"),
        "none of them was filed"
    );
    // The good one still is.
    cluster.operate(&["upload-release", good.to_str().context("UTF-8")?]).await?;
    cluster.finish().await
}

/// Makes package b depend on a, which depends on b.
fn with_circle(manifest: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(manifest).replace("dependencies: []", "dependencies:\n  - a");
    text.into_bytes()
}

type BadArchive = (&'static str, std::path::PathBuf, &'static str);

fn bad_archives(cluster: &Cluster, good: &Path) -> Result<Vec<BadArchive>> {
    let path = |name: &str| cluster.folder().join(name);
    let whole = fs::read(good)?;
    fs::write(path("truncated.tgz"), &whole[..whole.len() / 2])?;
    fs::write(path("text.tgz"), "this is no archive")?;
    let changed = Forge::from(good, |name, mut content| {
        if name.ends_with("packages/hello.tgz") {
            content.push(0);
        }
        content
    })?;
    let mut outside = Forge::default();
    outside.entry(EntryType::Regular, "../../evil", "", b"outside")?;
    let mut link = Forge::from(good, |_, content| content)?;
    link.entry(EntryType::Symlink, "packages/hello.tgz", "/etc/passwd", b"")?;
    let mut bomb = Forge::default();
    bomb.entry(EntryType::Regular, "packages/zeros.tgz", "", &vec![0; 64 << 20])?;
    Ok(vec![
        ("no archive", path("text.tgz"), "archive"),
        ("a truncated archive", path("truncated.tgz"), "archive"),
        (
            "a changed part",
            changed.write(path("changed.tgz"))?,
            "packages/hello.tgz` of the release archive: content has digest ",
        ),
        ("a name outside", outside.write(path("outside.tgz"))?, "evil"),
        ("a link outside", link.write(path("link.tgz"))?, "packages/hello.tgz"),
        ("a bomb", bomb.write(path("bomb.tgz"))?, "times its size"),
    ])
}

#[tokio::test]
async fn releases_that_fail_or_never_end_fail_alone() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    upload_base(&cluster, Net::Loopback(cluster.loopback_net())).await?;
    // The one that takes a minute goes first, beside the others.
    let endless = offer(&cluster, "endless", "true", "<% loop {} %>").await?;
    let client = cluster.client()?;
    let looping = client.deploy(&fs::read_to_string(&endless)?, "endless").await?;

    let greedy =
        offer(&cluster, "greedy", "true", "<% all = []; loop { all << 'x' * 10_000_000 } %>").await?;
    let args = ["-d", "greedy", "deploy", &greedy];
    refused_with_the_endless_one(&cluster, "a template that eats memory", &args, "emory").await?;

    let script = "echo building; echo 'the moon is in the wrong house' >&2; exit 3";
    let broken = offer(&cluster, "broken", script, "").await?;
    let args = ["-d", "broken", "deploy", &broken];
    refused_with_the_endless_one(
        &cluster,
        "a packaging script that fails",
        &args,
        "the moon is in the wrong house",
    )
    .await?;

    let hello = ReleaseFolder::copy_of_hello(cluster.folder())?.archive()?;
    cluster.operate(&["upload-release", hello.to_str().context("UTF-8")?]).await?;
    let sick = Hello { behaviour: "never-starts", watch_ms: 3_000, ..Hello::default() };
    let args = ["-d", "hello", "deploy", &sick.file(&cluster)?];
    refused_with_the_endless_one(
        &cluster,
        "a job that never gets healthy",
        &args,
        "is not running after update",
    )
    .await?;
    // The same deployment, healed.
    cluster.operate(&["-d", "hello", "deploy", &Hello::default().file(&cluster)?]).await?;
    assert!(client.instances("hello").await?.iter().all(|i| i.process_state == "running"));

    let ended = client.ended(looping, DEPLOY_LIMIT).await?;
    assert_eq!(ended.state, "error", "{ended:?}");
    assert!(
        ended.error_message.contains("rendering the templates of job 'endless' took longer than")
            && ended.error_message.contains("was stopped"),
        "{ended:?}"
    );
    is_well(&mut cluster, "a template that never ends").await?;
    assert_eq!(client.lost().await?, Vec::new());
    cluster.finish().await
}

/// As [`refused`], while the endless deploy holds its own lock.
async fn refused_with_the_endless_one(
    cluster: &Cluster,
    case: &str,
    args: &[&str],
    reason: &str,
) -> Result<()> {
    let output = cluster.dctl().args(args).output().await?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(1), "{case}: {}\n{said}", output.status);
    ensure!(said.contains(reason), "{case}: `{reason}` is not said:\n{said}");
    println!("{case}: {}", said.lines().last().unwrap_or_default());
    let name = args[1];
    let client = cluster.client()?;
    wait::until_true(&format!("no lock is left by {case}"), SETTLE, async || {
        Ok(!client.locks().await?.iter().any(|lock| lock.name.ends_with(&format!(":{name}"))))
    })
    .await
}

/// Uploads a release with one package and one job of its name; returns a manifest's file that deploys it.
async fn offer(cluster: &Cluster, name: &str, packaging: &str, template: &str) -> Result<String> {
    let release = ReleaseFolder::new(cluster, name)?;
    release.package(name, &[], packaging)?;
    release.job(name, &[name], template)?;
    let archive = release.archive()?;
    cluster.operate(&["upload-release", archive.to_str().context("UTF-8")?]).await?;
    write_file(cluster, &format!("{name}.yml"), &one_job(name, name))
}

#[tokio::test]
async fn strangers_and_wrong_configurations_are_refused() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(1, CloudKind::Process).await?;
    let password = cluster.folder().join("password");
    fs::write(&password, "guessed")?;
    let args = ["--password-file", password.to_str().context("UTF-8")?, "cluster", "status"];
    refused(&mut cluster, "a wrong password", &args, 4, "not logged in").await?;

    let patience = Patience::within(Duration::from_secs(5));
    let stranger = cluster.credentials().with_password("guessed");
    let stranger = Client::with_patience(&[cluster.api(1)], &stranger, patience)?;
    let error = stranger.put_config("x", "text: y").await.expect_err("nobody knows this password");
    assert!(!format!("{error:#}").contains("guessed"), "{error:#}");

    let number = cluster.prepare()?;
    let file = cluster.folder_of(number).join("directord.toml");
    let text = fs::read_to_string(&file)?.replace("data_dir", "colour = \"blue\"\ndata_dir");
    fs::write(&file, text)?;
    let output = cluster.directord(number, &["run"], &[])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("colour"), "{stderr}");
    is_well(&mut cluster, "an unknown key").await?;
    cluster.finish().await
}
