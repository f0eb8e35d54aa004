//! The calls of ours against the recorded ones: VM by VM, then between instances.

use std::collections::BTreeSet;

use chaos_tests::recorded::{Difference, Ledger, Place, is_uuid};
use serde_json::Value;

use super::calls::{Call, Recording};
use super::stage::Played;
use super::units::{self, Unit};

/// What is done to one instance before the next one's turn comes.
const TURN: [&str; 4] =
    ["agent stop", "agent run_script pre-start", "agent start", "agent run_script post-start"];

/// Compares, and takes down what is found.
pub fn compare(recording: &Recording, ours: &Played, ledger: &mut Ledger) {
    let recorded_units = units::of(&[], &recording.events);
    let our_units = units::of(ours.before(), ours.during());
    if std::env::var_os("SEQUENCES_TOLD").is_some() {
        tell("recorded", &recorded_units);
        tell("ours", &our_units);
    }
    let scenario = recording.name.as_str();
    for (recorded, own) in pairs(&recorded_units, &our_units) {
        let instance = recorded.or(own).and_then(|unit| unit.instance.as_deref());
        let instance = instance.or(own.and_then(|unit| unit.instance.as_deref())).unwrap_or("?");
        for (recorded, own) in aligned(calls_of(recorded), calls_of(own)) {
            let Some(what) = recorded.or(own).map(Call::what) else { continue };
            let request = format!("{instance} {what}");
            ledger.enter(Place { scenario, request: &request }, differences(recorded, own));
        }
    }
    for difference in out_of_turn(&recorded_units, &our_units) {
        ledger.enter(Place { scenario, request: "turns" }, vec![difference]);
    }
}

fn tell(whose: &str, units: &[Unit]) {
    for unit in units {
        println!("{whose} {:?}", unit.instance);
        unit.calls.iter().for_each(|(at, call)| println!("    {at} {}", call.what()));
    }
}

fn calls_of(unit: Option<&Unit>) -> Vec<&Call> {
    unit.into_iter().flat_map(|unit| unit.calls.iter().map(|(_, call)| call)).collect()
}

/// Pairs VMs: those of one instance in their order; those of nobody with what is most like them.
fn pairs<'a>(recorded: &'a [Unit], ours: &'a [Unit]) -> Vec<(Option<&'a Unit>, Option<&'a Unit>)> {
    let mut left: Vec<&Unit> = ours.iter().collect();
    let mut pairs = Vec::new();
    let (known, unknown): (Vec<&Unit>, Vec<&Unit>) =
        recorded.iter().partition(|unit| unit.instance.is_some());
    for unit in known {
        let found = left.iter().position(|own| own.instance == unit.instance);
        pairs.push((Some(unit), found.map(|at| left.remove(at))));
    }
    for unit in unknown {
        let likeness = |own: &Unit| common(&whats(&calls_of(Some(unit))), &whats(&calls_of(Some(own)))).len();
        let best = (0..left.len()).max_by_key(|at| (likeness(left[*at]), std::cmp::Reverse(*at)));
        pairs.push((Some(unit), best.map(|at| left.remove(at))));
    }
    pairs.extend(left.into_iter().map(|own| (None, Some(own))));
    pairs
}

fn whats(calls: &[&Call]) -> Vec<String> {
    calls.iter().map(|call| call.what()).collect()
}

/// Returns the places of the longest common subsequence.
fn common(a: &[String], b: &[String]) -> Vec<(usize, usize)> {
    let mut length = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            length[i][j] = match a[i] == b[j] {
                true => length[i + 1][j + 1] + 1,
                false => length[i + 1][j].max(length[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut places) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            places.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if length[i + 1][j] >= length[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    places
}

/// Pairs the calls of two VMs, in their order.
fn aligned<'a>(recorded: Vec<&'a Call>, ours: Vec<&'a Call>) -> Vec<(Option<&'a Call>, Option<&'a Call>)> {
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    let mut places = common(&whats(&recorded), &whats(&ours));
    places.push((recorded.len(), ours.len()));
    for (to_i, to_j) in places {
        pairs.extend(recorded[i..to_i].iter().map(|call| (Some(*call), None)));
        pairs.extend(ours[j..to_j].iter().map(|call| (None, Some(*call))));
        if let (Some(recorded), Some(own)) = (recorded.get(to_i), ours.get(to_j)) {
            pairs.push((Some(*recorded), Some(*own)));
        }
        (i, j) = (to_i + 1, to_j + 1);
    }
    pairs
}

fn differences(recorded: Option<&Call>, ours: Option<&Call>) -> Vec<Difference> {
    let alone = |at: &str, recorded: String, ours: String| vec![Difference { at: at.into(), recorded, ours }];
    match (recorded, ours) {
        (Some(recorded), Some(ours)) => {
            let mut found = Vec::new();
            let list = |call: &Call| Value::Array(call.arguments.clone());
            differ("arguments", &list(recorded), &list(ours), &mut found);
            if recorded.agent.is_none() {
                differ("context", &recorded.context, &ours.context, &mut found);
                differ("api_version", &recorded.api_version, &ours.api_version, &mut found);
            }
            found
        }
        (Some(recorded), None) => alone("missing", recorded.what(), String::new()),
        (None, Some(ours)) => alone("more", String::new(), ours.what()),
        (None, None) => Vec::new(),
    }
}

fn differ(at: &str, recorded: &Value, ours: &Value, found: &mut Vec<Difference>) {
    match (recorded, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
                let at = format!("{at}.{key}");
                match (side(a), side(b)) {
                    (Some(a), Some(b)) => differ(&at, &a, &b, found),
                    (a, b) => {
                        found.push(Difference { at, recorded: shown(a.as_ref()), ours: shown(b.as_ref()) })
                    }
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (place, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{at}[{place}]"), a, b, found);
            }
        }
        (a, b) if kind(at, a) == kind(at, b) => {}
        (a, b) => found.push(Difference { at: at.into(), recorded: shown(Some(a)), ours: shown(Some(b)) }),
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(
        || "nothing".to_owned(),
        |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    )
}

/// Returns a value, or of one that varies from run to run its kind.
fn kind(at: &str, value: &Value) -> String {
    let text = shown(Some(value));
    let key = at.rsplit('.').next().unwrap_or_default();
    match key {
        "ip" => return text.rsplit_once('.').map(|(net, _)| format!("{net}.*")).unwrap_or(text),
        "sha1" | "blobstore_id" => return "a blob".into(),
        "request_id" | "director_uuid" => return "an id".into(),
        // Of files with names of blobs and instances in them.
        "configuration_hash" => return digest(text),
        _ if at.contains(".template_hashes.") => return digest(text),
        _ => {}
    }
    let is_moment = text.len() == 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T';
    if is_moment {
        "a time".into()
    } else if is_id(&text) {
        "an id".into()
    } else {
        without_ids(&text)
    }
}

fn digest(text: String) -> String {
    let is_one = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_one { "a digest".into() } else { text }
}

/// Ids of ours are UUIDs, or what the simulated cloud says; recorded ones stand between angle brackets, or are numbers of
/// processes and digests of 32 digits.
fn is_id(text: &str) -> bool {
    let is_recorded = text.starts_with('<') && text.ends_with('>') && !text.contains(' ');
    let is_hexadecimal = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = text.len() >= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_of_sim = ["vm-", "disk-", "stemcell-", "snapshot-"].iter().any(|start| text.starts_with(start));
    is_recorded || is_hexadecimal || is_number || is_of_sim || is_uuid(text)
}

/// Names that have ids in them: `compilation-<uuid-3>/<uuid-4>`, `db/ID`.
fn without_ids(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let (known, after) = match rest.find('>').filter(|_| rest.starts_with('<')) {
            Some(end) => (true, end + 1),
            None if rest.get(..36).is_some_and(is_uuid) => (true, 36),
            None => (false, rest.chars().next().map_or(rest.len(), char::len_utf8)),
        };
        plain += if known { "an id" } else { &rest[..after] };
        rest = &rest[after..];
    }
    plain
}

/// Returns what recorded instances did one after the other and ours did not.
fn out_of_turn(recorded: &[Unit], ours: &[Unit]) -> Vec<Difference> {
    let mut found = Vec::new();
    let turns = |units: &[Unit]| -> Vec<(String, usize, usize)> {
        let turn = |unit: &Unit| {
            let mut places =
                unit.calls.iter().filter(|(_, call)| TURN.contains(&call.what().as_str())).map(|(at, _)| *at);
            let first = places.next()?;
            Some((unit.instance.clone()?, first, places.next_back().unwrap_or(first)))
        };
        units.iter().filter_map(turn).collect()
    };
    let (recorded, ours) = (turns(recorded), turns(ours));
    for (first, _, end) in &recorded {
        for (second, begin, _) in recorded.iter().filter(|(name, begin, _)| name != first && begin > end) {
            let _ = begin;
            let end = ours.iter().filter(|turn| turn.0 == *first).map(|turn| turn.2).max();
            let begin = ours.iter().filter(|turn| turn.0 == *second).map(|turn| turn.1).min();
            if let (Some(end), Some(begin)) = (end, begin)
                && end > begin
            {
                let recorded = format!("{first} before {second}");
                found.push(Difference { at: "order".into(), recorded, ours: format!("{end} > {begin}") });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    fn call(method: &str, argument: Value) -> Call {
        Call::deserialize(json!({ "agent": "a", "method": method, "arguments": [argument] })).unwrap()
    }

    fn unit(instance: &str, first: usize) -> Unit {
        let calls = ["stop", "start"].into_iter().enumerate();
        let calls = calls.map(|(at, method)| (first + at, call(method, Value::Null))).collect();
        Unit { instance: Some(instance.into()), calls }
    }

    fn found(recorded: &[Call], ours: &[Call]) -> Vec<String> {
        let pairs = aligned(recorded.iter().collect(), ours.iter().collect());
        let found = pairs.into_iter().flat_map(|(recorded, ours)| differences(recorded, ours));
        found.map(|one| format!("{} {} {}", one.at, one.recorded, one.ours)).collect()
    }

    #[test]
    fn calls_that_are_missing_or_more_or_in_another_order_or_say_something_else_are_found() {
        let (stop, start, mount) =
            (call("stop", Value::Null), call("start", Value::Null), call("mount_disk", json!("<disk-1>")));
        let recorded = [stop.clone(), mount.clone(), start.clone()];
        let none: Vec<String> = Vec::new();
        assert_eq!(
            found(&recorded, &[stop.clone(), call("mount_disk", json!("disk-77")), start.clone()]),
            none
        );
        assert_eq!(found(&recorded, &[stop.clone(), start.clone()]), ["missing agent mount_disk "]);
        assert_eq!(found(std::slice::from_ref(&stop), &[stop.clone(), stop.clone()]), ["more  agent stop"]);
        assert_eq!(found(&[stop.clone(), start.clone()], &[start.clone(), stop.clone()]).len(), 2);
        let other = [stop, call("mount_disk", json!("sda")), start];
        assert_eq!(found(&recorded, &other), ["arguments[0] <disk-1> sda"]);
    }

    #[test]
    fn instances_whose_turns_overlap_are_found() {
        let recorded = [unit("a/0", 0), unit("a/1", 2)];
        assert_eq!(out_of_turn(&recorded, &[unit("a/0", 5), unit("a/1", 7)]), []);
        assert_eq!(out_of_turn(&recorded, &[unit("a/0", 5), unit("a/1", 5)]).len(), 1);
        let together = [unit("a/0", 0), unit("a/1", 1)];
        assert_eq!(out_of_turn(&together, &[unit("a/1", 0), unit("a/0", 1)]), []);
    }

    #[test]
    fn names_are_compared_without_the_ids_in_them() {
        let ids = "9f4b6f11-4eee-4876-a132-d18492f12985";
        assert_eq!(without_ids(&format!("db/{ids}")), without_ids("db/<uuid-6>"));
        assert_eq!(without_ids(&format!("a-{ids}/{ids}")), without_ids("a-<uuid-3>/<uuid-4>"));
        assert_ne!(without_ids("db/<uuid-6>"), without_ids("api/<uuid-6>"));
    }
}
