use expect_test::{Expect, expect};

use super::*;

const COLUMNS: &[Column] = &[
    column("Name", "name"),
    column("State", "state"),
    column("IPs", "ips"),
    column("Since", "since"),
    column("", "hidden"),
];

fn listing() -> Listing {
    let mut listing = Listing::new("instances", COLUMNS);
    listing.row([
        "web/0".into(),
        Cell::State("running".into()),
        Cell::Lines(vec!["10.0.0.1".into(), "10.0.0.2".into()]),
        Cell::Time(1_795_337_711_999),
        Cell::Flag(true),
    ]);
    listing.row([
        "db/0".into(),
        Cell::State("failing".into()),
        Cell::Lines(Vec::new()),
        Cell::Time(0),
        Cell::None,
    ]);
    listing
}

fn print(format: Format, print: impl Fn(&mut Console)) -> (String, String) {
    #[derive(Clone, Default)]
    struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (out, err) = (Shared::default(), Shared::default());
    let mut console = Console {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        format,
        screen: Screen::Plain,
        confirm: Confirm::GoAhead,
    };
    print(&mut console);
    let text = |shared: Shared| String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
    (text(out), text(err))
}

#[track_caller]
fn check(format: Format, expect: Expect) {
    let (out, err) = print(format, |console| console.list(&listing()).unwrap());
    expect.assert_eq(&out);
    assert_eq!(err, "");
}

#[test]
fn people_get_a_table_and_a_count() {
    check(
        Format::People,
        expect![[r#"
             Name   State    IPs       Since
             web/0  running  10.0.0.1  2026-11-22T08:55:11Z
                             10.0.0.2
             db/0   failing  -         -

            2 instances
        "#]],
    );
}

#[test]
fn programs_get_an_array_of_objects_with_everything() {
    check(
        Format::Programs,
        expect![[r#"
            {
              "revision": null,
              "rows": [
                {
                  "name": "web/0",
                  "state": "running",
                  "ips": [
                    "10.0.0.1",
                    "10.0.0.2"
                  ],
                  "since": "2026-11-22T08:55:11Z",
                  "hidden": true
                },
                {
                  "name": "db/0",
                  "state": "failing",
                  "ips": [],
                  "since": null,
                  "hidden": null
                }
              ]
            }
        "#]],
    );
}

#[test]
fn an_empty_list_is_a_list() {
    let empty = Listing::new("releases", COLUMNS);
    assert_eq!(empty.to_json().to_string(), "[]");
    assert!(empty.to_table(Screen::Plain).ends_with("\n\n0 releases"));
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let on = |colours| listing().to_table(Screen::Terminal { colours, progress: false });
    assert!(on(true).contains("\u{1b}["));
    assert!(!on(false).contains('\u{1b}'));
}

#[test]
fn one_thing_is_a_name_and_a_value_a_line_or_an_object() {
    let record = Record::new([
        (column("Name", "name"), "web".into()),
        (column("", "secret_of_programs"), Cell::Number(3)),
    ]);
    assert_eq!(record.to_table(Screen::Plain), " Name  web");
    assert_eq!(record.to_json().to_string(), r#"{"name":"web","secret_of_programs":3}"#);
}

#[test]
fn remarks_stay_out_of_a_programs_way() {
    let note = |format| print(format, |console| console.note("Task 3").unwrap());
    assert_eq!(note(Format::People), ("Task 3\n".into(), String::new()));
    assert_eq!(note(Format::Programs), (String::new(), "Task 3\n".into()));
}

#[test]
fn boshs_number_follows_the_text_of_an_error() {
    let refused = Error::Refused {
        operation: "TasksClient.get",
        code: Some((10000, "TaskNotFound".into())),
        status: tonic::Code::NotFound,
        message: "Task 9 not found".into(),
    };
    let (_, err) = print(Format::People, |console| console.error(&refused));
    assert_eq!(err, "Error: Task 9 not found (TaskNotFound, 10000)\n");
    let (_, err) = print(Format::Programs, |console| console.error(&refused));
    expect![[r#"{"error":{"exit_code":1,"code":10000,"name":"TaskNotFound","message":"Task 9 not found","advice":null}}
"#]]
    .assert_eq(&err);
}

#[test]
fn causes_are_told_once() {
    let missing = Error::file("read", "m.yml")(io::Error::from(io::ErrorKind::NotFound));
    assert_eq!(people(&missing), "Error: failed to read `m.yml`: entity not found");
}

#[test]
fn plurals_become_singular() {
    for (many, one) in
        [("tasks", "task"), ("releases", "release"), ("replicas", "replica"), ("entries", "entry")]
    {
        assert_eq!(singular(many), one);
    }
}
