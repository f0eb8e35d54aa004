//! Settings from each source, and what is said where there are none.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use owned_tasks::{OnExit, OwnedTasks};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn of_bosh(agent: &str) -> String {
    let directorate = json!({ "endpoints": ["10.0.0.1:25557"], "authorities_pem": "P", "token": "t0ken" });
    json!({
        "agent_id": agent, "vm": { "name": "vm-7" }, "mbus": "", "ntp": [],
        "networks": { "default": { "type": "manual", "ip": "10.0.0.9", "default": ["dns", "gateway"] } },
        "disks": { "system": "/dev/sda", "ephemeral": { "path": "/dev/sdb" }, "persistent": { "d-1": "/dev/sdc" } },
        "env": { "bosh": { "directorate": directorate, "password": "pa55" } },
    })
    .to_string()
}

fn sources(list: Value) -> Sources {
    serde_json::from_value(json!({ "Platform": {}, "Infrastructure": { "Settings": { "Sources": list } } }))
        .unwrap()
}

/// A cloud's metadata service: knows one path, wants a token, and says what it was asked.
async fn metadata(
    tasks: &OwnedTasks,
    path: &'static str,
    content: String,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    tasks.spawn("metadata", OnExit::Ignore, |stop| async move {
        let accepted = async || tokio::select! { accepted = listener.accept() => accepted.ok(), () = stop.cancelled() => None };
        while let Some((mut stream, _)) = accepted().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let (status, body) = if head.starts_with("PUT /token ") {
                ("200 OK", "a-token")
            } else if head.starts_with(&format!("GET {path} ")) && head.contains("a-token") {
                ("200 OK", content.as_str())
            } else {
                ("404 Not Found", "")
            };
            heard.lock().unwrap().push(head);
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (uri, asked)
}

#[test]
fn what_a_cpi_of_bosh_s_leaves_is_understood() {
    let settings = understand(of_bosh("a-1").as_bytes()).unwrap();
    assert_eq!((settings.agent_id.as_str(), settings.vm.name.as_str()), ("a-1", "vm-7"));
    assert_eq!((settings.endpoints.len(), settings.token.as_str()), (1, "t0ken"));
    assert_eq!(settings.disks.ephemeral.as_deref(), Some("/dev/sdb"));
    assert_eq!(settings.disks.persistent["d-1"], json!("/dev/sdc"));
    assert_eq!(settings.networks["default"]["ip"], "10.0.0.9");
    assert!(!settings.path_rewrite);
    // Ours is understood as ever.
    let ours = serde_json::to_vec(&settings).unwrap();
    assert_eq!(understand(&ours).unwrap(), settings);
}

#[test]
fn what_is_not_understood_is_not_quoted() {
    let other = json!({ "agent_id": "a-1", "env": { "bosh": { "password": "pa55" } } }).to_string();
    for (document, expected) in [
        ("pa55 {", "no JSON"),
        (&*other, "`env.bosh.directorate` is missing"),
        (r#"{"env": {"pa55": 1}}"#, "`agent_id` is missing"),
        (r#"{"endpoints": "pa55"}"#, "`agent_id`, `endpoints`"),
    ] {
        let said = understand(document.as_bytes()).unwrap_err().chain();
        assert!(said.contains(expected) && !said.contains("pa55"), "{said}");
    }
}

#[tokio::test]
async fn the_first_source_that_has_settings_gives_all_of_them_and_they_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().join("vcap"));
    let (first, second) = (dir.path().join("first.json"), dir.path().join("second.json"));
    std::fs::write(&second, of_bosh("second")).unwrap();
    let sources = sources(json!([
        { "Type": "File", "SettingsPath": first }, { "Type": "File", "SettingsPath": second },
    ]));
    assert_eq!(sources.settings(&layout).await.unwrap().agent_id.as_str(), "second");
    std::fs::write(&first, of_bosh("first")).unwrap();
    assert_eq!(sources.settings(&layout).await.unwrap().agent_id.as_str(), "first");
    // Gone, as a cloud's metadata may be at the next start.
    std::fs::remove_file(&first).unwrap();
    std::fs::write(&second, "{}").unwrap();
    assert_eq!(sources.settings(&layout).await.unwrap().agent_id.as_str(), "first");
    let elsewhere = Layout::new(dir.path().join("other"));
    let nowhere = sources.settings(&elsewhere).await.unwrap_err().to_string();
    assert!(nowhere.contains("first.json") && nowhere.contains("`agent_id` is missing"), "{nowhere}");
}

#[tokio::test]
async fn metadata_are_asked_for_with_a_token_and_may_be_in_base64() {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(of_bosh("a-1"));
    let tasks = OwnedTasks::new();
    let (uri, asked) = metadata(&tasks, "/latest/user-data", format!("\"{encoded}\"")).await;
    let dir = tempfile::tempdir().unwrap();
    let sources = sources(json!([
        { "Type": "HTTP", "URI": uri, "UserDataPath": "/elsewhere" },
        { "Type": "HTTP", "URI": uri, "Headers": { "X-Other": "yes" }, "UserDataPath": "/latest/user-data",
          "InstanceIDPath": "/latest/instance-id", "SSHKeysPath": "", "TokenPath": "/token" },
    ]));
    assert_eq!(sources.settings(&Layout::new(dir.path())).await.unwrap().agent_id.as_str(), "a-1");
    assert!(tasks.stop(Duration::from_secs(10)).await);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[1].contains("x-aws-ec2-metadata-token-ttl-seconds: 300"), "{}", asked[1]);
    assert!(
        asked[2].contains("x-aws-ec2-metadata-token: a-token") && asked[2].contains("x-other: yes"),
        "{}",
        asked[2]
    );
}

#[tokio::test]
async fn instance_metadata_have_a_path_for_settings() {
    let tasks = OwnedTasks::new();
    let (uri, _asked) = metadata(&tasks, "/computeMetadata/v1/settings", of_bosh("g-1")).await;
    let dir = tempfile::tempdir().unwrap();
    let sources =
        sources(json!([{ "Type": "InstanceMetadata", "URI": uri, "Headers": { "Flavor": "a-token" },
        "SettingsPath": "/computeMetadata/v1/settings" }]));
    assert_eq!(sources.settings(&Layout::new(dir.path())).await.unwrap().agent_id.as_str(), "g-1");
    assert!(tasks.stop(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn settings_are_read_from_the_first_drive_that_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let (content, image) = (dir.path().join("content"), dir.path().join("drive.img"));
    std::fs::create_dir_all(content.join("ec2/latest")).unwrap();
    std::fs::write(content.join("ec2/latest/user-data"), of_bosh("d-1")).unwrap();
    let made = std::process::Command::new("/sbin/mkfs.ext4")
        .args(["-q", "-d"])
        .args([&content, &image])
        .arg("4M")
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        return println!("skipped: no file system can be made here (apt-get install e2fsprogs)");
    }
    let mounted = std::process::Command::new("mount").args(["-o", "ro"]).args([&image, &content]).status();
    if !mounted.is_ok_and(|mounted| mounted.success()) {
        return println!("skipped: nothing can be mounted here: it takes root, and loop devices");
    }
    assert!(std::process::Command::new("umount").arg(&content).status().unwrap().success());
    let drive = |path: &str| {
        sources(json!([{ "Type": "ConfigDrive", "DiskPaths": ["/dev/disk/by-label/none", image],
            "MetaDataPath": "", "UserDataPath": path }]))
    };
    let layout = Layout::new(dir.path().join("vcap"));
    let outside = drive("../etc/passwd").settings(&layout).await.unwrap_err().to_string();
    assert!(outside.contains("leaves the disk"), "{outside}");
    assert_eq!(drive("ec2/latest/user-data").settings(&layout).await.unwrap().agent_id.as_str(), "d-1");
}

#[test]
fn a_source_that_is_not_known_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.json");
    for (list, expected) in
        [(r#"[{"Type":"Carrier pigeon"}]"#, "Carrier pigeon"), ("[]", "is empty"), ("[{}]", "Type")]
    {
        std::fs::write(&path, format!(r#"{{"Infrastructure":{{"Settings":{{"Sources":{list}}}}}}}"#))
            .unwrap();
        let said = Sources::open(&path).unwrap_err().to_string();
        assert!(said.contains(expected) && said.contains("agent.json"), "{said}");
    }
}
