//! Requests with our names in them.

use serde_json::Value;

use super::names::{Kind, Names};
use super::recording::Request;
use super::text;

/// Parameters and fields whose value is a number of something.
fn kind_of(field: &str, noun: &str) -> Option<Kind> {
    match field {
        "task" => Some(Kind::Task),
        "before_id" => Some(Kind::Event),
        "cloud_config_ids" | "runtime_config_ids" | "expected_latest_id" => Some(Kind::Config),
        "id" if noun == "configs" => Some(Kind::Config),
        "link_provider_id" => Some(Kind::Row("link_providers".into())),
        "link_id" => Some(Kind::Row("links".into())),
        _ => None,
    }
}

/// Returns a path with its query.
pub fn path(recorded: &str, names: &Names) -> String {
    let (path, query) =
        recorded.split_once('?').map_or((recorded, None), |(path, query)| (path, Some(query)));
    let parts: Vec<&str> = path.split('/').collect();
    let kind = match parts.get(1..3) {
        Some(["events", _]) => Some(Kind::Event),
        Some(["configs", _]) => Some(Kind::Config),
        Some(["links", _]) => Some(Kind::Row("links".into())),
        Some(["vms", _]) => Some(Kind::Token),
        Some(["resources", _]) => Some(Kind::Blob),
        _ => None,
    };
    let mut path = match (kind, parts.get(2)) {
        (Some(kind), Some(number)) => format!("/{}/{}", parts[1], names.number(&kind, number)),
        _ => text::translated(path, names),
    };
    if let Some(query) = query {
        path.push('?');
        path += &query.split('&').map(|pair| parameter(pair, names)).collect::<Vec<_>>().join("&");
    }
    path
}

fn parameter(pair: &str, names: &Names) -> String {
    let Some((name, value)) = pair.split_once('=') else { return pair.to_owned() };
    if name == "context" {
        return format!("{name}={}", context(value, names));
    }
    match kind_of(name, "") {
        Some(kind) => format!("{name}={}", names.number(&kind, value)),
        // A slash is no part of a name.
        None => text::translated(&pair.replace("%2F", "/"), names).replace('/', "%2F"),
    }
}

/// The context of a deploy is JSON, escaped.
fn context(value: &str, names: &Names) -> String {
    let plain = value
        .replace("%7B", "{")
        .replace("%7D", "}")
        .replace("%22", "\"")
        .replace("%3A", ":")
        .replace("%5B", "[");
    let plain = plain.replace("%5D", "]").replace("%2C", ",");
    let Ok(mut parsed) = serde_json::from_str::<Value>(&plain) else { return value.to_owned() };
    renumber(&mut parsed, "", "", names);
    let escaped = parsed.to_string().replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
    escaped.replace(':', "%3A").replace('[', "%5B").replace(']', "%5D").replace(',', "%2C")
}

/// Returns how the name of the file begins in which the CLI puts what a command exports as a whole.
pub fn exported_file(command: &str) -> Option<String> {
    let (_, wanted) = command.split_once(" export-release ")?;
    let (release, stemcell) = wanted.split_once(' ')?;
    let is_whole = !stemcell.contains(' ');
    is_whole.then(|| format!("{}-{}-", release.replace('/', "-"), stemcell.replace('/', "-")))
}

/// Returns a body.
pub fn body(request: &Request, names: &Names) -> String {
    let is_json = request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    let noun = request.path.split(['/', '?']).nth(1).unwrap_or_default();
    let parsed = is_json.then(|| serde_json::from_str::<Value>(request.text()).ok()).flatten();
    let before = parsed.clone();
    match parsed {
        Some(mut value) => {
            renumber(&mut value, "", noun, names);
            // As it was written, unless something in it has another name here.
            if Some(&value) == before.as_ref() { request.text().to_owned() } else { value.to_string() }
        }
        None => text::translated(request.text(), names),
    }
}

fn renumber(value: &mut Value, field: &str, noun: &str, names: &Names) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| renumber(value, key, noun, names)),
        Value::Array(list) => list.iter_mut().for_each(|value| renumber(value, field, noun, names)),
        Value::String(text) => {
            *text = match kind_of(field, noun) {
                Some(kind) => names.number(&kind, text),
                None => text::translated(text, names),
            }
        }
        Value::Number(number) => {
            let ours = kind_of(field, noun)
                .and_then(|kind| names.number(&kind, &number.to_string()).parse::<u64>().ok());
            if let Some(ours) = ours {
                *value = ours.into();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_another_name_here_is_called_by_it() {
        let mut names = Names::default();
        for (kind, recorded, ours) in [
            (Kind::Task, "9", "3"),
            (Kind::Event, "9", "4"),
            (Kind::Config, "9", "5"),
            (Kind::Token, "2132", "vm-1"),
            (Kind::Blob, "b-1", "c0ffee"),
            (Kind::Token, "78871f0d-e157-4d5d-830a-1b256dc807d9", "11111111-e157-4d5d-830a-1b256dc807d9"),
        ] {
            assert!(names.learn(&kind, recorded, ours));
        }
        for (recorded, ours) in [
            ("/tasks/9/output?type=event", "/tasks/3/output?type=event"),
            ("/task/9", "/task/3"),
            ("/tasks/99999", "/tasks/99999"),
            ("/events/9", "/events/4"),
            ("/events?before_id=9&task=9", "/events?before_id=4&task=3"),
            ("/configs/9", "/configs/5"),
            ("/configs/abc", "/configs/abc"),
            ("/vms/2132", "/vms/vm-1"),
            ("/resources/b-1", "/resources/c0ffee"),
            (
                "/deployments/d/jobs/g/78871f0d-e157-4d5d-830a-1b256dc807d9?state=started",
                "/deployments/d/jobs/g/11111111-e157-4d5d-830a-1b256dc807d9?state=started",
            ),
            (
                "/deployments?context=%7B%22cloud_config_ids%22%3A%5B9%5D%7D",
                "/deployments?context=%7B%22cloud_config_ids%22%3A%5B5%5D%7D",
            ),
            (
                "/events?instance=api%2F78871f0d-e157-4d5d-830a-1b256dc807d9",
                "/events?instance=api%2F11111111-e157-4d5d-830a-1b256dc807d9",
            ),
            ("/releases?", "/releases?"),
        ] {
            assert_eq!(path(recorded, &names), ours);
        }
    }
}
