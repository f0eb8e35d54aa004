use model::dns::Alias;

use super::*;

/// A group of four in two zones, with one instance in two networks, and a group of one elsewhere.
fn records() -> Records {
    let at = |id: &str, number: u32, index: u32, az: u32, network: (&str, u32), ip: &str| Record {
        id: id.into(),
        num_id: Some(number.to_string()),
        group: "web".into(),
        group_ids: vec!["1".into(), "7".into()],
        az: Some(format!("z{az}")),
        az_id: Some(az.to_string()),
        network: network.0.into(),
        network_id: Some(network.1.to_string()),
        deployment: "p".into(),
        ip: ip.parse().ok(),
        domain: "bosh".into(),
        agent_id: Some(format!("agent-{id}")),
        index,
    };
    let a = ("a", 1);
    let mut records = vec![
        at("one", 11, 0, 1, a, "10.0.0.1"),
        at("two", 12, 1, 2, a, "10.0.0.2"),
        at("three", 13, 2, 1, a, "10.0.0.3"),
        at("four", 14, 3, 2, a, "10.0.0.4"),
        at("one", 11, 0, 1, ("b", 2), "10.9.0.1"),
        at("six", 16, 4, 2, a, "fd00::6"),
    ];
    records.push(Record {
        group: "db".into(),
        group_ids: vec!["2".into()],
        deployment: "q".into(),
        az: None,
        az_id: None,
        ..at("five", 15, 0, 1, a, "10.0.0.5")
    });
    Records { version: 3, records, aliases: BTreeMap::new() }
}

/// One runs, two fails, three is silent; of the others nothing is known.
fn zone() -> Zone {
    let fares = [("one", Fare::Well), ("two", Fare::Badly), ("three", Fare::Badly)];
    Zone::new(records()).with_fares(fares.map(|(id, fares)| (format!("agent-{id}"), fares)).into())
}

fn ask(zone: &Zone, name: &str) -> String {
    match zone.find(name) {
        Found::Addresses(mut all) => {
            all.sort();
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn a_name_stands_for_those_that_its_filters_let_pass() {
    let zone = zone();
    for (name, found) in [
        // One instance, however it fares.
        ("two.web.a.p.bosh", "10.0.0.2"),
        ("TWO.Web.a.P.BOSH.", "10.0.0.2"),
        ("one.web.b.p.bosh", "10.9.0.1"),
        ("five.web.a.p.bosh", "Nothing"),
        // A group, in the long form.
        ("q-s4.web.a.p.bosh", "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 fd00::6"),
        ("q-s0.web.a.p.bosh", "10.0.0.1"),
        ("q-.web.a.p.bosh", "10.0.0.1"),
        ("q-s3.web.a.p.bosh", "10.0.0.1"),
        ("q-s1.web.a.p.bosh", "10.0.0.2 10.0.0.3"),
        ("q-s0.db.a.q.bosh", "10.0.0.5"),
        ("q-s3.db.a.q.bosh", ""),
        ("q-s0.web.a.q.bosh", "Nothing"),
        // Zones, indexes, numbers, networks.
        ("q-a2s4.web.a.p.bosh", "10.0.0.2 10.0.0.4 fd00::6"),
        ("q-a1a2i0i1s4.web.a.p.bosh", "10.0.0.1 10.0.0.2"),
        ("q-a2m11s4.web.a.p.bosh", "Nothing"),
        ("q-a9s4.web.a.p.bosh", "Nothing"),
        ("q-a1s4.db.a.q.bosh", "Nothing"),
        // The unknown ones before those that fare badly.
        ("q-a2s0.web.a.p.bosh", "10.0.0.4 fd00::6"),
        ("q-m12s0.web.a.p.bosh", "10.0.0.2"),
        // Short forms: by the group's number or by a link's.
        ("q-s0.q-g1.bosh", "10.0.0.1 10.9.0.1"),
        ("q-n2s0.q-g7.bosh", "10.9.0.1"),
        ("q-m11n1s0.q-g1.bosh", "10.0.0.1"),
        ("q-s4y1.q-g2.bosh", "10.0.0.5"),
        ("q-s0.q-g3.bosh", "Nothing"),
        // What is no such name.
        ("q-s2.web.a.p.bosh", "BadName"),
        ("q-x1.web.a.p.bosh", "BadName"),
        ("q-as0.web.a.p.bosh", "BadName"),
        ("q-é1.web.a.p.bosh", "BadName"),
        ("one.q-g1.bosh", "Nothing"),
        ("q-s0.q-gx.bosh", "Nothing"),
        ("web.a.p.bosh", "Nothing"),
        ("bosh", ""),
        ("example.com", "NotOurs"),
        ("notbosh", "NotOurs"),
    ] {
        assert_eq!(ask(&zone, name), found, "{name}");
    }
}

#[test]
fn whoever_is_left_is_answered_with_when_nobody_fares_well() {
    let all_badly = ["one", "two", "three", "four", "six"].map(|id| (format!("agent-{id}"), Fare::Badly));
    let zone = Zone::new(records()).with_fares(all_badly.into());
    assert_eq!(ask(&zone, "q-a1s0.web.a.p.bosh"), "10.0.0.1 10.0.0.3");
    assert_eq!(ask(&zone, "q-a1s3.web.a.p.bosh"), "");
}

#[test]
fn an_alias_stands_for_what_a_link_leads_to() {
    let alias = |group: &str, health: Option<&str>, placeholder: Option<&str>| Alias {
        root_domain: "bosh".into(),
        group_id: group.into(),
        health_filter: health.map(str::to_owned),
        initial_health_check: None,
        placeholder_type: placeholder.map(str::to_owned),
    };
    let aliases = BTreeMap::from([
        ("My.alias".to_owned(), vec![alias("7", Some("healthy"), None), alias("2", Some("all"), None)]),
        ("_.each.alias".to_owned(), vec![alias("7", None, Some("uuid"))]),
        ("odd.alias".to_owned(), vec![alias("7", Some("splendid"), None)]),
    ]);
    let zone = Zone::new(Records { aliases, ..records() }).with_fares((*zone().fares).clone());
    assert_eq!(ask(&zone, "my.alias"), "10.0.0.1 10.0.0.5 10.9.0.1");
    assert_eq!(ask(&zone, "four.each.alias"), "10.0.0.4");
    assert_eq!(ask(&zone, "five.each.alias"), "Nothing", "of another group");
    assert_eq!(ask(&zone, "each.alias"), "NotOurs");
    assert_eq!(ask(&zone, "odd.alias"), "NotOurs", "it says what nobody understands");
}

#[test]
fn every_record_answers_to_its_own_names() {
    let zone = zone();
    for record in records().records {
        let ip = record.ip.unwrap().to_string();
        assert_eq!(ask(&zone, &record.long_name()), ip);
        let (number, network) = (record.num_id.unwrap(), record.network_id.unwrap());
        for group in record.group_ids {
            assert_eq!(ask(&zone, &format!("q-m{number}n{network}s0.q-g{group}.bosh")), ip);
        }
    }
}

#[test]
fn filters_are_conditions_that_must_all_hold() {
    let zone = zone();
    let with = |filters: &str| match zone.find(&format!("q-{filters}s4.q-g1.bosh")) {
        Found::Addresses(all) => all.into_iter().collect::<BTreeSet<_>>(),
        Found::Nothing => BTreeSet::new(),
        other => panic!("{filters}: {other:?}"),
    };
    let filters = ["", "a1", "a2", "a1a2", "i0", "i0i3", "m11", "m12m14", "n1", "n2", "n1n2"];
    for one in filters {
        for other in filters {
            // Two of one kind are alternatives: those are told apart by the letter.
            if one.get(..1) == other.get(..1) {
                continue;
            }
            let both: BTreeSet<IpAddr> = with(one).intersection(&with(other)).copied().collect();
            assert_eq!(with(&format!("{one}{other}")), both, "{one} and {other}");
        }
    }
}

#[test]
fn the_order_of_answers_is_drawn() {
    let zone = zone();
    let first = || match zone.find("q-s4.web.a.p.bosh") {
        Found::Addresses(all) => all[0],
        other => panic!("{other:?}"),
    };
    let firsts: BTreeSet<IpAddr> = (0..500).map(|_| first()).collect();
    assert_eq!(firsts.len(), 5);
}
