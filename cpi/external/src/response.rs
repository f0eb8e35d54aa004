//! What an executable may answer, and what that means.

use std::net::IpAddr;

use cpi_api::{Call, CpiError, CpiErrorKind, CpiInfo};
use model::ip::{self, Block};
use model::managed_network::MadeSubnet;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{VERSION_MAX, VERSION_MIN};

/// An answer that has the contract's shape.
#[derive(Debug)]
pub struct Response {
    /// What the CPI wants in the log.
    pub log: String,
    /// The result, or what the cloud complains about.
    pub outcome: Result<Value, CpiError>,
}

impl Response {
    /// Says in a line how it ended; results may be long, and env may be in them.
    pub fn summary(&self) -> String {
        match &self.outcome {
            Ok(Value::String(id)) => format!("\"{id}\""),
            Ok(Value::Array(parts)) if parts.first().is_some_and(Value::is_string) => parts[0].to_string(),
            Ok(_) => "done".into(),
            Err(error) => format!("{}: {}", error.type_name, error.message),
        }
    }
}

/// All three keys are wanted; a missing one is no answer.
#[derive(Deserialize)]
struct Document {
    #[serde(deserialize_with = "present")]
    result: Value,
    #[serde(deserialize_with = "present_or_null")]
    error: Option<Complaint>,
    log: String,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(rename = "type")]
    type_name: String,
    message: String,
    ok_to_retry: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    Value::deserialize(from)
}

fn present_or_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Complaint>, D::Error> {
    Option::deserialize(from)
}

fn invalid(method: &'static str, why: impl std::fmt::Display) -> CpiError {
    CpiError::new(CpiErrorKind::InvalidResponse, method, format!("Invalid CPI response - {why}"))
}

/// Reads what came over standard output. How the process ended says nothing: the contract ignores it.
pub fn parse(stdout: &[u8], method: &'static str) -> Result<Response, CpiError> {
    if stdout.iter().all(u8::is_ascii_whitespace) {
        return Err(invalid(method, "it has ended without an answer"));
    }
    let document: Document = serde_json::from_slice(stdout).map_err(|error| invalid(method, error))?;
    let outcome = match document.error {
        None => Ok(document.result),
        Some(complaint) => Err(error(method, complaint)),
    };
    Ok(Response { log: document.log, outcome })
}

fn error(method: &'static str, complaint: Complaint) -> CpiError {
    let Complaint { type_name, message, ok_to_retry } = complaint;
    // Old CPIs have no word of their own for a method that they don't know.
    let is_unknown = type_name == "InvalidCall" && message.starts_with("Method is not known, got")
        || type_name == "Bosh::Clouds::CloudError" && message.starts_with("Invalid Method:");
    let kind = match type_name.as_str() {
        _ if is_unknown => CpiErrorKind::NotImplemented,
        "Bosh::Clouds::VMCreationFailed" => CpiErrorKind::VmCreationFailed,
        "Bosh::Clouds::VMNotFound" => CpiErrorKind::VmNotFound,
        "Bosh::Clouds::DiskNotFound" => CpiErrorKind::DiskNotFound,
        "Bosh::Clouds::DiskNotAttached" => CpiErrorKind::DiskNotAttached,
        "Bosh::Clouds::NoDiskSpace" => CpiErrorKind::NoDiskSpace,
        "Bosh::Clouds::NotImplemented" => CpiErrorKind::NotImplemented,
        "Bosh::Clouds::NotSupported" => CpiErrorKind::NotSupported,
        _ => CpiErrorKind::Other,
    };
    let ok_to_retry = ok_to_retry && kind == CpiErrorKind::VmCreationFailed;
    CpiError { type_name, ok_to_retry, ..CpiError::new(kind, method, message) }
}

/// Reads what `info` says, down to the contract that both know.
pub fn info(answer: &Value) -> Result<CpiInfo, CpiError> {
    let refused = |why: String| CpiError::new(CpiErrorKind::NotSupported, "info", why);
    let version = answer["api_version"].as_u64();
    let version = version.ok_or_else(|| refused("CPI must report api_version via info".into()))?;
    if version < u64::from(VERSION_MIN) {
        return Err(refused(format!(
            "CPI API version {version} is not supported. Minimum required version is {VERSION_MIN}."
        )));
    }
    let formats = answer["stemcell_formats"].as_array().into_iter().flatten();
    Ok(CpiInfo {
        api_version: u32::try_from(version).unwrap_or(VERSION_MAX).min(VERSION_MAX),
        stemcell_formats: formats.filter_map(|format| format.as_str().map(str::to_owned)).collect(),
    })
}

/// Returns whether what should go is gone already: some clouds say so by an error.
pub fn is_gone(call: &Call, error: &CpiError) -> bool {
    match call {
        Call::DeleteVm(_) => error.kind == CpiErrorKind::VmNotFound,
        Call::DeleteDisk(_) | Call::DeleteSnapshot(_) => error.kind == CpiErrorKind::DiskNotFound,
        Call::DetachDisk(..) => error.kind == CpiErrorKind::DiskNotAttached,
        Call::DeleteNetwork(_) => error.type_name == "Bosh::Clouds::NetworkNotFound",
        _ => false,
    }
}

/// Turns a result into what the call's caller expects.
pub fn result(call: &Call, answer: Value) -> Result<Value, CpiError> {
    let method = call.method();
    let id = |answer: Value| match answer {
        Value::String(id) if !id.is_empty() => Ok(Value::String(id)),
        // Numbers are ids of some clouds: as text they are what is sent back.
        Value::Number(id) => Ok(json!(id.to_string())),
        other => Err(invalid(method, format!("{other} is no id"))),
    };
    match call {
        Call::CreateStemcell(_) | Call::CreateDisk(_) => id(answer),
        // Some clouds that can't take any say so by no id at all.
        Call::SnapshotDisk(_) if answer == "" => {
            let why = "the CPI took no snapshot, and gave no id for it";
            Err(CpiError::new(CpiErrorKind::NotImplemented, method, why))
        }
        Call::SnapshotDisk(_) => id(answer),
        Call::CreateVm(_) => match answer {
            // What the networks are the agent tells.
            Value::Array(mut parts) if !parts.is_empty() => Ok(json!({ "cid": id(parts.swap_remove(0))? })),
            other => Err(invalid(method, format!("{other} is no VM's id and networks"))),
        },
        Call::HasVm(_) | Call::HasDisk(_) => match answer {
            Value::Bool(_) => Ok(answer),
            other => Err(invalid(method, format!("{other} is neither true nor false"))),
        },
        Call::CalculateVmCloudProperties(_) => match answer {
            Value::Object(_) => Ok(answer),
            other => Err(invalid(method, format!("{other} is no map of properties"))),
        },
        Call::AttachDisk(..) => match answer {
            Value::Null => Err(invalid(method, "No disk_hint")),
            Value::String(hint) if hint.is_empty() => Err(invalid(method, "No disk_hint")),
            hint => Ok(hint),
        },
        Call::CreateNetwork(_) => network(answer).map_err(|why| invalid(method, why)),
        Call::Info | Call::FindVm(_) | Call::FindDisk(_) | Call::FindSnapshot(_) | Call::FindNetwork(_) => {
            Ok(answer)
        }
        Call::DeleteStemcell(_)
        | Call::DeleteVm(_)
        | Call::RebootVm(_)
        | Call::SetVmMetadata(..)
        | Call::DeleteDisk(_)
        | Call::DeleteSnapshot(_)
        | Call::DeleteNetwork(_)
        | Call::DetachDisk(..)
        | Call::SetDiskMetadata(..)
        | Call::ResizeDisk(..) => Ok(Value::Null),
    }
}

/// Reads `[cid, {range, gateway, reserved}, cloud_properties]`. Its addresses must make sense: a plan is made of them.
fn network(answer: Value) -> Result<Value, String> {
    let cid = match &answer[0] {
        Value::String(id) if !id.is_empty() => id.clone(),
        Value::Number(id) => id.to_string(),
        other => return Err(format!("{other} is no id of a network")),
    };
    let text = |key: &str| answer[1][key].as_str().map(str::to_owned).filter(|text| !text.is_empty());
    let range = text("range").ok_or_else(|| format!("network '{cid}' has no range"))?;
    if Block::parse_cidr(&range).is_none_or(|(block, _)| block.first == block.last) {
        return Err(format!("the range '{range}' of network '{cid}' is none"));
    }
    let gateway = text("gateway");
    if let Some(gateway) = gateway.as_ref().filter(|gateway| gateway.parse::<IpAddr>().is_err()) {
        return Err(format!("the gateway '{gateway}' of network '{cid}' is no address"));
    }
    let reserved = match &answer[1]["reserved"] {
        Value::Null => Vec::new(),
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
        }
        other => return Err(format!("{other} are no reserved addresses of network '{cid}'")),
    };
    if let Some(odd) = reserved.iter().find(|text| ip::parse_range(text).is_err()) {
        return Err(format!("'{odd}' is no reserved address of network '{cid}'"));
    }
    let cloud_properties = match &answer[2] {
        Value::Null => json!({}),
        properties @ Value::Object(_) => properties.clone(),
        other => return Err(format!("{other} are no cloud properties of network '{cid}'")),
    };
    Ok(json!(MadeSubnet { cid: cid.into(), range, gateway, reserved, cloud_properties }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> Result<Value, CpiError> {
        parse(text.as_bytes(), "has_vm")?.outcome
    }

    #[test]
    fn all_three_keys_are_wanted_and_of_their_types() {
        assert_eq!(outcome(r#"{"result":true,"error":null,"log":""}"#), Ok(json!(true)));
        for wrong in [
            r#"{"result":true,"log":""}"#,
            r#"{"error":null,"log":""}"#,
            r#"{"result":true,"error":null}"#,
            r#"{"result":true,"error":null,"log":null}"#,
            r#"{"result":null,"error":{"type":"X","message":"m"},"log":""}"#,
            r#"{"result":null,"error":{"type":1,"message":"m","ok_to_retry":false},"log":""}"#,
            "debug: hello\n{}",
            "",
            " \n",
        ] {
            let error = outcome(wrong).unwrap_err();
            assert_eq!(error.kind, CpiErrorKind::InvalidResponse, "{wrong}");
            assert!(error.message.starts_with("Invalid CPI response - "), "{error}");
        }
    }

    #[test]
    fn a_network_comes_with_addresses_that_make_sense() {
        let request = cpi_api::CreateNetwork {
            subnet_id: "s".into(),
            range: None,
            gateway: None,
            netmask_bits: Some(24),
            cloud_properties: json!({}),
        };
        let read = |answer: Value| result(&Call::CreateNetwork(request.clone()), answer);
        let good = json!(["net-1", {"range": "10.0.0.0/24", "gateway": "10.0.0.1", "reserved": ["10.0.0.2-10.0.0.4"]}, {"a": 1}]);
        let made = json!({"cid": "net-1", "range": "10.0.0.0/24", "gateway": "10.0.0.1",
            "reserved": ["10.0.0.2-10.0.0.4"], "cloud_properties": {"a": 1}});
        assert_eq!(read(good), Ok(made));
        let bare = read(json!([7, {"range": "10.0.0.0/24", "gateway": "10.0.0.1", "reserved": []}]));
        assert_eq!(bare.unwrap()["cid"], "7");
        for wrong in [
            json!("net-1"),
            json!(["", {"range": "10.0.0.0/24"}, {}]),
            json!(["n", {}, {}]),
            json!(["n", {"range": "10.0.0.0"}, {}]),
            json!(["n", {"range": "10.0.0.0/24", "gateway": "there"}, {}]),
            json!(["n", {"range": "10.0.0.0/24", "reserved": ["there"]}, {}]),
            json!(["n", {"range": "10.0.0.0/24"}, "secret"]),
        ] {
            assert_eq!(read(wrong).unwrap_err().kind, CpiErrorKind::InvalidResponse);
        }
        let gone = CpiError {
            type_name: "Bosh::Clouds::NetworkNotFound".into(),
            ..CpiError::new(CpiErrorKind::Other, "delete_network", "gone")
        };
        assert!(is_gone(&Call::DeleteNetwork("net-1".into()), &gone));
    }

    #[test]
    fn a_method_that_is_not_known_is_not_implemented_whatever_it_is_called() {
        let answer = |kind: &str, message: &str| {
            let error = json!({ "type": kind, "message": message, "ok_to_retry": true });
            outcome(&json!({ "result": null, "error": error, "log": "" }).to_string()).unwrap_err()
        };
        for (kind, message) in [
            ("Bosh::Clouds::NotImplemented", ""),
            ("InvalidCall", "Method is not known, got: 'resize_disk'"),
            ("Bosh::Clouds::CloudError", "Invalid Method: resize_disk"),
        ] {
            assert_eq!(answer(kind, message).kind, CpiErrorKind::NotImplemented);
        }
        assert_eq!(answer("InvalidCall", "Arguments are not correct").kind, CpiErrorKind::Other);
        assert!(answer("Bosh::Clouds::VMCreationFailed", "full").ok_to_retry);
        assert!(!answer("Bosh::Clouds::NoDiskSpace", "full").ok_to_retry, "only a VM is tried again");
    }

    #[test]
    fn the_older_of_two_contracts_is_spoken_and_none_older_than_the_second() {
        let version = |answer: Value| info(&answer).map(|info| info.api_version);
        assert_eq!(version(json!({ "api_version": 2, "stemcell_formats": ["raw"] })), Ok(2));
        assert_eq!(version(json!({ "api_version": 9 })), Ok(3));
        let old = version(json!({ "api_version": 1 })).unwrap_err();
        assert_eq!(old.message, "CPI API version 1 is not supported. Minimum required version is 2.");
        let silent = version(json!({ "stemcell_formats": [] })).unwrap_err();
        assert_eq!(silent.message, "CPI must report api_version via info");
    }
}
