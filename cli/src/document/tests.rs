use camino::Utf8PathBuf;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn files(texts: &[(&str, &str)]) -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
    for (name, text) in texts {
        std::fs::write(path.join(name), text).unwrap();
    }
    (folder, path)
}

/// Lays variables and operations over a document.
fn overlaid(document: &str, vars: &[&str], ops: &str) -> Result<String, String> {
    let (_keep, path) = files(&[("m.yml", document), ("ops.yml", ops)]);
    let overlay = Overlay {
        vars: vars.iter().map(|pair| (*pair).to_owned()).collect(),
        ops_files: vec![path.join("ops.yml")],
        ..Overlay::default()
    };
    let read = Document::read(&path.join("m.yml"), &overlay);
    read.map(|document| document.text).map_err(|error| error.to_string().replace(&format!("{path}/"), ""))
}

#[track_caller]
fn check(document: &str, vars: &[&str], ops: &str, expect: Expect) {
    expect.assert_eq(&overlaid(document, vars, ops).unwrap());
}

#[track_caller]
fn refused(document: &str, vars: &[&str], ops: &str, wanted: &str) {
    assert_eq!(overlaid(document, vars, ops).unwrap_err(), wanted);
}

#[test]
fn a_document_without_an_overlay_is_sent_as_it_is() {
    let text = "# why\nname:   web # spaced\n";
    let (_keep, path) = files(&[("m.yml", text)]);
    assert_eq!(Document::read(&path.join("m.yml"), &Overlay::default()).unwrap().text, text);
}

#[test]
fn values_keep_their_type_and_what_nobody_fills_stays() {
    check(
        "port: ((port))\nurl: http://((host)):((port))/((!path))\nlist: ((l))\npassword: ((password))\nspaced: (( port ))\nin: a (( port )) b\n",
        &["port=8080", "host=example.com", "l=[1, two]", "path=x"],
        "",
        expect![[r#"
            port: 8080
            url: "http://example.com:8080/x"
            list:
            - 1
            - two
            password: ((password))
            spaced: 8080
            in: a (( port )) b
        "#]],
    );
}

#[test]
fn dots_dig_into_values() {
    check(
        "a: ((cert.ca))\nb: ((/p.q/list.1))\nc: x((deep.0.n))\n",
        &["cert={ca: PEM}", "/p.q/list=[zero, one]", "deep=[{n: 7}]"],
        "",
        expect![[r#"
            a: PEM
            b: one
            c: x7
        "#]],
    );
    refused(
        "a: ((cert.key))",
        &["cert={ca: PEM}"],
        "",
        "`m.yml`: variable `cert` has no `key` (wanted by `((cert.key))`)",
    );
}

#[test]
fn keys_may_be_placeholders_and_values_may_hold_more() {
    check("((k)): ((a))\n", &["k=name", "a=x-((b))", "b=1"], "", expect![["name: x-1\n"]]);
    refused("a: ((a))", &["a=((b))", "b=((a))"], "", "`m.yml`: variable `a` refers to itself");
    refused(
        "a: x((l))",
        &["l=[1]"],
        "",
        "`m.yml`: variable `l` stands inside a text, and is neither text nor integer",
    );
}

#[test]
fn definitions_of_what_is_given_are_dropped() {
    check(
        "variables:\n- {name: given, type: password}\n- {name: made, type: password}\n",
        &["given=x"],
        "",
        expect![[r#"
            variables:
            - name: made
              type: password
        "#]],
    );
    check("variables: [{name: given}]\n", &["given=x"], "", expect![["variables: []\n"]]);
}

#[test]
fn a_flag_beats_a_file_and_a_later_file_an_earlier_one() {
    let (_keep, path) = files(&[
        ("m.yml", "[((a)), ((b)), ((c)), ((d))]"),
        ("1.yml", "{a: 1, b: 1, c: 1, d: 1}"),
        ("2.yml", "{b: 2, c: 2, d: 2}"),
        ("text", "3"),
    ]);
    let overlay = Overlay {
        vars: vec!["d=4".into()],
        var_files: vec![format!("c={path}/text"), format!("d={path}/text")],
        vars_files: vec![path.join("1.yml"), path.join("2.yml")],
        ops_files: Vec::new(),
    };
    let value = Document::read(&path.join("m.yml"), &overlay).unwrap().value().unwrap();
    assert_eq!(value, json!([1, 2, "3", 4]));
}

#[test]
fn a_secret_of_the_command_line_is_not_repeated() {
    let error = overlaid("a: 1", &["geheim"], "").unwrap_err();
    assert!(!error.contains("geheim"), "{error}");
}

const WEB: &str = "groups:\n- name: web\n  n: 1\n- name: db\n  n: 2\n";

#[test]
fn operations_replace_create_and_insert() {
    check(
        WEB,
        &[],
        "- {type: replace, path: /groups/name=web/n, value: 5}
- {type: replace, path: /groups/name=web/env?/tags/a, value: x}
- {type: replace, path: /groups/-, value: {name: last}}
- {type: replace, path: /groups/name=new?/n, value: 9}
- {type: replace, path: /groups/0:before, value: {name: first}}
- {type: replace, path: '/groups/name=web:after', value: {name: second}}
- {type: replace, path: /a~1b?, value: slash}
- {type: replace, path: '/groups/name=web:prev/n?', value: 0}
",
        expect![[r#"
            groups:
            - name: first
              n: 0
            - name: web
              n: 5
              env:
                tags:
                  a: x
            - name: second
            - name: db
              n: 2
            - name: last
            - name: new
              n: 9
            a/b: slash
        "#]],
    );
}

#[test]
fn operations_remove_and_test() {
    check(
        WEB,
        &[],
        "- {type: test, path: /groups/-1/n, value: 2}
- {type: test, path: /groups/name=none, absent: true}
- {type: remove, path: /groups/name=web/n}
- {type: remove, path: /groups/1}
- {type: remove, path: /missing?/n}
- {type: remove, path: '/groups/name=none?'}
",
        expect![[r#"
            groups:
            - name: web
        "#]],
    );
    check(WEB, &[], "- {type: replace, path: '', value: {a: 1}}", expect![["a: 1\n"]]);
}

#[test]
fn an_operation_that_fails_is_named_as_bosh_names_it() {
    for (operation, why) in [
        (
            "{type: replace, path: /groups/name=none/n, value: 1}",
            "Expected to find exactly one matching array item for path '/groups/name=none/n' but found 0",
        ),
        ("{type: replace, path: /none/n, value: 1}", "Expected to find a map key 'none' for path '/none/n'"),
        ("{type: replace, path: /groups, value: ~}", "Missing value"),
        ("{type: remove, path: /groups, value: 1}", "Cannot specify value"),
        (
            "{type: remove, path: /groups/name=web/none}",
            "Expected to find a map key 'none' for path '/groups/name=web/none'",
        ),
        (
            "{type: remove, path: /groups/7}",
            "Expected to find array index '7' but found array of length '2' for path '/groups/7'",
        ),
        (
            "{type: replace, path: /groups/a, value: 1}",
            "Expected to find a map on the way of path '/groups/a'",
        ),
        (
            "{type: replace, path: /groups/-/n, value: 1}",
            "expected '-' to be the last token of path '/groups/-/n'",
        ),
        ("{type: replace, path: groups, value: 1}", "expected path 'groups' to start with '/'"),
        (
            "{type: test, path: /groups/0/n, value: 3}",
            "Found value at '/groups/0/n' does not match the expected one",
        ),
        ("{type: move, path: /groups}", "Unknown operation type 'move'"),
    ] {
        let ops = format!("- {{type: test, path: /groups/0/n, value: 1}}\n- {operation}\n");
        refused(WEB, &[], &ops, &format!("Error 'operation [1] in ops.yml failed': {why}"));
    }
}

#[test]
fn documents_that_are_no_yaml_are_refused_by_name() {
    let error = overlaid("a: [1", &["x=1"], "").unwrap_err();
    assert!(error.starts_with("`m.yml` is not YAML that we can read: line"), "{error}");
}

#[test]
fn emitted_text_is_quoted_only_where_it_must_be() {
    let value = json!({
        "plain": "web/0 (canary)",
        "yes": "yes",
        "number": "012",
        "time": "1:30",
        "empty": "",
        "colon": "a: b",
        "comment": "a #b",
        "pem": "-----BEGIN\nabc\n-----END\n",
        "script": "if true\n  then\n\nfi",
        "nested": [[1, [2]], [], {}, [{"a": null, "b": {"c": 1.5}}]],
        "tiny": 1e-7,
    });
    expect![[r#"
        plain: web/0 (canary)
        "yes": "yes"
        number: "012"
        time: "1:30"
        empty: ""
        colon: "a: b"
        comment: "a #b"
        pem: |
          -----BEGIN
          abc
          -----END
        script: |-
          if true
            then

          fi
        nested:
        - - 1
          - - 2
        - []
        - {}
        - - a: null
            b:
              c: 1.5
        tiny: 1.0e-7
    "#]]
    .assert_eq(&emit(&value));
    assert_eq!(model::yaml::parse(&emit(&value)).unwrap(), value);
}

fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[-a-z0-9~:#!&*?|>%@`'\"{}\\[\\],. \n\t]{0,12}",
        "[ \n]{0,3}[a-z]{1,3}(\n ?[a-z]{0,3}){0,4}[ \n]{0,3}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(text.clone(), inner, 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_emitted_reads_back_as_the_same(value in any_value()) {
        let text = emit(&value);
        prop_assert_eq!(model::yaml::parse(&text).map_err(|error| format!("{error}\n{text}")), Ok(value));
    }
}
