//! What became of a task: its end, and what it told people.

use model::task::Task;

/// A task that has ended, with its output.
#[derive(Clone, Debug)]
pub struct Ended {
    pub task: Task,
    pub events: String,
    pub result: String,
}

impl Ended {
    /// Fails unless it ended well.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!(self.task.state, model::task::TaskState::Done, "{:?}\n{}", self.task.error, self.events);
        self
    }

    /// Fails unless it ended with an error, and returns its text.
    #[track_caller]
    pub fn error(self) -> String {
        assert_eq!(self.task.state, model::task::TaskState::Error, "{}", self.events);
        self.task.error.unwrap().message
    }

    /// Returns the event lines as people see them: stage, tags, task without ids, state.
    pub fn lines(&self) -> Vec<String> {
        self.events
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                if let Some(error) = line.get("error") {
                    return format!("error {}", error["code"]);
                }
                if let Some(kind) = line.get("type") {
                    return format!("{}: {}", kind.as_str().unwrap(), line["message"].as_str().unwrap());
                }
                let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                let tags: Vec<&str> =
                    line["tags"].as_array().unwrap().iter().filter_map(|t| t.as_str()).collect();
                let tags = if tags.is_empty() { String::new() } else { format!(" [{}]", tags.join(",")) };
                let (task, state) = (without_ids(&text("task")), text("state"));
                let place = format!("{}/{}", line["index"], line["total"]);
                match line["data"]["status"].as_str() {
                    Some(status) => format!("{}{tags}: {task} {place} {status}", text("stage")),
                    None => format!("{}{tags}: {task} {place} {state}", text("stage")),
                }
            })
            .collect()
    }

    /// Returns what the event lines tell, without the order in which units that ran side by side told it.
    pub fn told(&self) -> Vec<String> {
        let without_index = |line: &String| -> String {
            let words =
                line.split(' ').filter(|word| !word.contains('/') || word.contains('<')).collect::<Vec<_>>();
            words.join(" ")
        };
        let mut lines: Vec<String> = self.lines().iter().map(without_index).collect();
        lines.sort();
        lines
    }
}

/// Replaces UUIDs.
pub fn without_ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest
        .char_indices()
        .map(|(at, _)| at)
        .find(|at| rest.get(*at..*at + 36).is_some_and(|part| uuid::Uuid::try_parse(part).is_ok()))
    {
        out.push_str(&rest[..at]);
        out.push_str("<id>");
        rest = &rest[at + 36..];
    }
    out + rest
}
