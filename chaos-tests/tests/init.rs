//! The first command of all: what `directord init` tells, to whom, and how often.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chaos_tests::client::Credentials;
use chaos_tests::cluster::{Cluster, SETTLE};
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;

/// Returns the files below a folder that hold some text.
fn files_with(folder: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
            match kind? {
                kind if kind.is_dir() => folders.push(path),
                kind if kind.is_file() => {
                    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                    if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                        found.push(path);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

#[tokio::test]
async fn init_shows_the_admins_password_once_and_writes_it_nowhere() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::empty()?;
    let number = cluster.prepare()?;
    let init = cluster.directord(number, &["init"], &[])?;
    let (told, complaints) = (String::from_utf8(init.stdout)?, String::from_utf8(init.stderr)?);
    assert!(init.status.success(), "{complaints}");
    let after = |label: &str| -> Vec<&str> { told.lines().filter_map(|l| l.strip_prefix(label)).collect() };
    let [password] = after("Password: ")[..] else { panic!("not one password in:\n{told}") };
    let [user] = after("User: ")[..] else { panic!("not one user in:\n{told}") };
    assert!(password.len() >= 20 && told.matches(password).count() == 1, "{told}");
    assert!(!complaints.contains(password), "{complaints}");

    // It is the right one.
    let authority = fs::read_to_string(cluster.folder_of(number).join("data/identity/authorities.pem"))?;
    cluster.log_in(Credentials::new(&authority, user, password));
    cluster.run(number)?;
    cluster.wait_for_voter(number).await?;
    cluster.client()?.put_config("by", "text: the admin").await?;
    // Another one is not.
    let profile = cluster.folder().join("profile.json");
    let wrong = serde_json::json!({
        "endpoints": [cluster.api(number)], "ca_pem": authority, "user": user, "password": "guessed",
    });
    fs::write(&profile, wrong.to_string())?;
    let refused = cluster.dctl().args(["cluster", "status"]).output().await?;
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));

    // Nobody is told again, neither while it runs nor after.
    for is_running in [true, false] {
        if !is_running {
            cluster.terminate(number).await?;
        }
        let again = cluster.directord(number, &["init"], &[])?;
        let said = [again.stdout, again.stderr].concat();
        let said = String::from_utf8(said)?;
        assert!(!again.status.success() && said.contains("belongs to a fleet already"), "{said}");
        assert!(!said.contains("Password") && !said.contains(password), "{said}");
    }
    cluster.run(number)?;
    cluster.wait_for_voter(number).await?;

    // The search finds what is there, in logs and in the store; the password it does not find, nor what clients send.
    let folder = cluster.folder().to_owned();
    wait::until_true("what was written is found", SETTLE, async || {
        Ok(!files_with(&folder, "text: the admin")?.is_empty())
    })
    .await?;
    for secret in [password.to_owned(), STANDARD.encode(format!("{user}:{password}"))] {
        let found = files_with(&folder, &secret)?;
        assert!(found.is_empty(), "the password is in {found:?}");
    }
    cluster.finish().await
}
