//! Hostile templates: what they try must fail, end in time, and leave the renderer fit for the next job.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::time::{Duration, Instant};

use release::render::{DnsIds, Isolation, JobFailure, JobTemplates, RenderContext, RenderError, Template};
use release::{RenderOptions, RenderedJob, Renderer};
use serde_json::json;

fn job(text: &str) -> JobTemplates {
    JobTemplates {
        name: "hostile".into(),
        release: model::instance::ReleaseRef { name: "r".into(), version: "1".into() },
        monit: Vec::new(),
        templates: vec![Template {
            source: "t.erb".into(),
            destination: "t".into(),
            text: text.as_bytes().to_vec(),
        }],
    }
}

fn context(index: u32) -> RenderContext {
    let spec = json!({"job": {"name": "g"}, "index": index, "properties": {"hostile": {"a": 1}},
        "properties_need_filtering": true, "links": {}, "deployment": "d", "name": "g"});
    RenderContext::new(&spec, Vec::new())
}

async fn start(options: RenderOptions) -> Renderer {
    let renderer = Renderer::start(options).await.expect("Ruby is installed");
    println!("isolation: {}", renderer.isolation());
    renderer
}

fn quick() -> RenderOptions {
    RenderOptions { workers: 1, request_timeout: Duration::from_secs(3), ..RenderOptions::default() }
}

async fn render(renderer: &Renderer, text: &str) -> Result<RenderedJob, RenderError> {
    renderer.render_job(&job(text), &DnsIds::default(), &context(0)).await
}

async fn text(renderer: &Renderer, template: &str) -> String {
    let job = render(renderer, template).await.unwrap_or_else(|e| panic!("{template}: {e}"));
    String::from_utf8(job.files[0].contents.clone()).unwrap()
}

/// The renderer still works, whatever happened before.
async fn check_fit(renderer: &Renderer) {
    assert_eq!(text(renderer, "<%= p('a') + 1 %>").await, "2");
}

#[tokio::test]
async fn a_template_that_raises_is_reported_and_nothing_else() {
    let renderer = start(quick()).await;
    let error = render(&renderer, "a\n<% raise 'no' %>").await.unwrap_err();
    let expected = "- Unable to render templates for job 'hostile'. Errors are:\n  - Error filling in template 't.erb' (line 2: no)";
    assert_eq!(error.to_string(), expected);
    check_fit(&renderer).await;
}

#[tokio::test]
async fn a_template_that_loops_is_stopped() {
    let renderer = start(quick()).await;
    let before = Instant::now();
    let error = render(&renderer, "<% loop {} %>").await.unwrap_err();
    assert!(matches!(error, RenderError::Timeout { seconds: 3, .. }), "{error}");
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    check_fit(&renderer).await;
}

#[tokio::test]
async fn a_template_that_burns_cpu_is_killed_by_its_limit() {
    let options = RenderOptions { cpu_seconds_max: 1, request_timeout: Duration::from_secs(60), ..quick() };
    let renderer = start(options).await;
    let error = render(&renderer, "<% loop { 1 + 1 } %>").await.unwrap_err();
    assert!(
        matches!(&error, RenderError::Died { reason, .. } if reason.contains("XCPU") || reason.contains("KILL")),
        "{error}"
    );
    check_fit(&renderer).await;
}

#[tokio::test]
async fn a_template_that_eats_memory_fails_alone() {
    let renderer = start(RenderOptions { memory_bytes_max: 512 << 20, ..RenderOptions::default() }).await;
    let error = render(&renderer, "<% a = []; loop { a << 'x' * 10_000_000 } %>").await.unwrap_err();
    match &error {
        RenderError::Job(JobFailure::Templates { errors, .. }) => {
            assert!(errors[0].message.contains("failed to allocate memory"), "{error}");
        }
        RenderError::Died { .. } => {}
        _ => panic!("{error}"),
    }
    check_fit(&renderer).await;
}

#[tokio::test]
async fn a_template_that_renders_too_much_is_refused() {
    let renderer = start(RenderOptions { output_bytes_max: 1 << 20, ..quick() }).await;
    let error = render(&renderer, "<%= 'x' * 3_000_000 %>").await.unwrap_err();
    assert!(matches!(error, RenderError::OutputTooLarge { bytes_max: 1_048_576, .. }), "{error}");
    check_fit(&renderer).await;
}

#[tokio::test]
async fn a_template_that_forks_leaves_nobody_behind() {
    let renderer = start(quick()).await;
    if renderer.isolation() < Isolation::Contained {
        println!("skipped: only a PID namespace ends processes that leave their group");
        return;
    }
    let born = text(&renderer, "<%= fork { Process.setsid; sleep 1000 } %>").await;
    let alive =
        "<%= begin; Process.kill(0, PID); 'alive'; rescue Errno::ESRCH; 'gone'; end %>".replace("PID", &born);
    assert_eq!(text(&renderer, &alive).await, "gone");
    // A bomb hits the limit, and ends with its request at the latest.
    let error = render(&renderer, "<% loop { fork { sleep 1000 } } %>").await.unwrap_err();
    assert!(!matches!(error, RenderError::Start { .. }), "{error}");
    check_fit(&renderer).await;
}

#[tokio::test]
async fn a_template_cannot_reach_the_network() {
    let renderer = start(quick()).await;
    if renderer.isolation() < Isolation::Contained {
        println!("skipped: there is no network namespace here");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let template = format!(
        "<%= begin; TCPSocket.new('127.0.0.1', {port}); 'open'; rescue SystemCallError => e; e.class; end %>"
    );
    assert_ne!(text(&renderer, &template).await, "open");
    let abstract_socket =
        "<%= begin; UNIXSocket.new(\"\\0/tmp/x\"); 'open'; rescue SystemCallError => e; 'no'; end %>";
    assert_eq!(text(&renderer, abstract_socket).await, "no");
}

#[tokio::test]
async fn a_template_cannot_read_the_director_s_files() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "the key").unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, permissions).unwrap();
    let renderer = start(quick()).await;
    if renderer.isolation() < Isolation::OtherUser {
        println!("skipped: templates run as this user here");
        return;
    }
    let read =
        |path: &str| format!("<%= begin; File.read('{path}'); rescue SystemCallError => e; 'no'; end %>");
    assert_eq!(text(&renderer, &read(secret.to_str().unwrap())).await, "no");
    assert_eq!(text(&renderer, &read("/etc/shadow")).await, "no");
    // The director's environment, arguments and memory.
    assert_eq!(text(&renderer, &read(&format!("/proc/{}/environ", std::process::id()))).await, "no");
    assert_eq!(
        text(&renderer, "<%= [Process.uid, Process.euid, Process.gid].uniq.inspect %>").await,
        "[65534]"
    );
    if renderer.isolation() == Isolation::Contained {
        let listing = text(&renderer, "<%= Dir.children('/').sort.join(' ') %>").await;
        assert!(
            listing
                .split(' ')
                .all(|d| ["bin", "dev", "etc", "lib", "lib32", "lib64", "tmp", "usr", "var"].contains(&d)),
            "{listing}"
        );
        let written = "<%= %w[/usr/x /etc/x /x /dev/x].map { |f| begin; File.write(f, ''); f; rescue SystemCallError; nil; end }.compact %>";
        assert_eq!(text(&renderer, written).await, "[]");
    }
    assert_eq!(text(&renderer, "<%= ENV.keys.sort.join(' ') %>").await, "HOME LANG PATH");
}

#[tokio::test]
async fn nothing_passes_from_one_request_to_the_next() {
    let renderer = start(quick()).await;
    let defined = "<% class ::String; def leak; 'leaked'; end; end; $leak = 1; File.write('/tmp/leak', 'x') rescue nil %>x";
    assert_eq!(text(&renderer, defined).await, "x");
    let seen = text(&renderer, "<%= ['x'.respond_to?(:leak), $leak.inspect].join(' ') %>").await;
    assert_eq!(seen, "false nil");
    if renderer.isolation() == Isolation::Contained {
        assert_eq!(text(&renderer, "<%= Dir.children('/tmp').inspect %>").await, "[]");
    }
}

#[tokio::test]
async fn nothing_passes_from_one_instance_to_the_next() {
    let renderer = start(quick()).await;
    let contexts: Vec<_> = (0..4).map(context).collect();
    for template in [
        "<% FIRST = index unless defined?(FIRST) %><%= FIRST %>",
        "<% $first ||= index %><%= $first %>",
        "<% unless respond_to?(:first_index); i = index; self.class.define_method(:first_index) { i }; end %><%= first_index %>",
    ] {
        let rendered = renderer.render_many(&job(template), &DnsIds::default(), &contexts).await.unwrap();
        let texts: Vec<_> = rendered
            .iter()
            .map(|r| String::from_utf8_lossy(&r.as_ref().unwrap().files[0].contents))
            .collect();
        assert_eq!(texts, ["0", "1", "2", "3"], "{template}");
    }
}

#[tokio::test]
async fn a_worker_that_is_killed_is_replaced() {
    let renderer = start(quick()).await;
    // The template's own process, not the worker's.
    let error = render(&renderer, "<% Process.kill(:KILL, Process.pid) %>").await.unwrap_err();
    assert!(matches!(&error, RenderError::Died { reason, .. } if reason.contains("KILL")), "{error}");
    check_fit(&renderer).await;
    // Where it may, the worker itself.
    let result = render(&renderer, "<% Process.kill(:KILL, Process.ppid); sleep 100 %>").await;
    assert!(result.is_err(), "{result:?}");
    check_fit(&renderer).await;
}

#[tokio::test]
async fn an_answer_cannot_be_forged_for_the_next_request() {
    let renderer = start(quick()).await;
    // The protocol's pipes are closed in the child: whatever it writes to any descriptor stays with its own request.
    let template = r#"<% (3..63).each { |fd| begin; IO.for_fd(fd, 'w', autoclose: false).syswrite([13].pack('N') + '{"results":[]'); rescue SystemCallError, ArgumentError, IOError; end } %>x"#;
    let _ = render(&renderer, template).await;
    check_fit(&renderer).await;
    check_fit(&renderer).await;
}

#[tokio::test]
async fn more_isolation_than_the_machine_offers_is_an_error() {
    let missing = RenderOptions { ruby: "/no/such/ruby".into(), ..quick() };
    let error = Renderer::start(missing).await.err().unwrap();
    assert!(matches!(error, RenderError::Start { .. } | RenderError::Isolation { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_instances_render_in_batches() {
    let renderer = start(RenderOptions::default()).await;
    let contexts: Vec<_> = (0..1000).map(context).collect();
    let template =
        job("<% if_p('a') do |a| -%>\na=<%= a %> <%= spec.index %> <%= spec.deployment %>\n<% end -%>\n");
    let before = Instant::now();
    let rendered = renderer.render_many(&template, &DnsIds::default(), &contexts).await.unwrap();
    println!("1000 instances took {:?}", before.elapsed());
    assert_eq!(rendered.len(), 1000);
    for (i, result) in rendered.iter().enumerate() {
        assert_eq!(result.as_ref().unwrap().files[0].contents, format!("a=1 {i} d\n").into_bytes());
    }
    let instance = release::RenderedInstance { jobs: vec![rendered[7].clone().unwrap()] };
    assert_eq!(instance.archive().unwrap(), instance.archive().unwrap());
}
