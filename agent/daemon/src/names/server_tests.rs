use std::collections::BTreeMap;

use hickory_proto::op::Query;
use hickory_proto::rr::Name;
use model::dns::{self, Records};

use super::*;

fn records(count: u32) -> Records {
    let at = |n: u32| dns::Record {
        id: format!("i-{n}"),
        group: "web".into(),
        network: "a".into(),
        deployment: "p".into(),
        ip: format!("10.0.{}.{}", n / 250, n % 250 + 1).parse().ok(),
        domain: "bosh".into(),
        agent_id: Some(format!("agent-{n}")),
        ..dns::Record::default()
    };
    let six = dns::Record { id: "six".into(), ip: "fd00::6".parse().ok(), ..at(0) };
    Records { version: 1, records: (0..count).map(at).chain([six]).collect(), aliases: BTreeMap::new() }
}

/// A resolver on a socket of its own, for as long as the test runs.
struct Running {
    address: SocketAddr,
    tasks: OwnedTasks,
}

impl Running {
    async fn with(records: Records, upstreams: Upstreams) -> Self {
        let names = Arc::new(Names::default());
        names.set_records(records);
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, tasks) = (sockets.address(), OwnedTasks::new());
        let (server, inner) = (Server::new(names, upstreams), tasks.clone());
        tasks.spawn("resolver", OnExit::Ignore, move |stop| async move {
            tokio::select! { () = server.run(sockets, &inner) => {}, () = stop.cancelled() => {} }
        });
        Self { address, tasks }
    }

    async fn by_datagram(&self, question: &[u8]) -> Message {
        Message::from_vec(&self.bytes_by_datagram(question).await).unwrap()
    }

    async fn bytes_by_datagram(&self, question: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(question, self.address).await.unwrap();
        let mut answer = vec![0; MESSAGE_BYTES_MAX];
        let received = tokio::time::timeout(Duration::from_secs(30), socket.recv(&mut answer));
        let length = received.await.expect("an answer").unwrap();
        answer.truncate(length);
        answer
    }

    async fn by_connection(&self, questions: &[Vec<u8>]) -> Vec<Message> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut answers = Vec::new();
        for question in questions {
            write_message(&mut stream, question).await.unwrap();
            answers.push(Message::from_vec(&read_message(&mut stream).await.unwrap()).unwrap());
        }
        answers
    }

    async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(30)).await);
    }
}

fn question(name: &str, of: RecordType) -> Message {
    let mut question = Message::query();
    question.metadata.id = 4711;
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), of));
    question
}

fn bytes(name: &str, of: RecordType) -> Vec<u8> {
    question(name, of).to_vec().unwrap()
}

fn shown(answer: &Message) -> String {
    let mut found: Vec<String> =
        answer.answers.iter().map(|record| format!("{} {}", record.ttl, record.data)).collect();
    found.sort();
    format!("{:?} {}", answer.metadata.response_code, found.join(", ")).trim_end().to_owned()
}

#[tokio::test]
async fn names_are_answered_by_datagram() {
    let running = Running::with(records(2), Upstreams::default()).await;
    for (name, of, wanted) in [
        ("i-1.web.a.p.bosh.", RecordType::A, "NoError 0 10.0.0.2"),
        ("I-1.WEB.a.p.bosh.", RecordType::A, "NoError 0 10.0.0.2"),
        ("i-1.web.a.p.bosh.", RecordType::AAAA, "NoError"),
        ("six.web.a.p.bosh.", RecordType::AAAA, "NoError 0 fd00::6"),
        ("q-s4.web.a.p.bosh.", RecordType::A, "NoError 0 10.0.0.1, 0 10.0.0.2"),
        ("q-s4.web.a.p.bosh.", RecordType::ANY, "NoError 0 10.0.0.1, 0 10.0.0.2, 0 fd00::6"),
        ("q-s4.web.a.p.bosh.", RecordType::MX, "NoError"),
        ("q-s3.web.a.p.bosh.", RecordType::A, "NoError"),
        ("nobody.web.a.p.bosh.", RecordType::A, "NXDomain"),
        ("q-z1.web.a.p.bosh.", RecordType::A, "FormErr"),
        ("example.com.", RecordType::A, "Refused"),
    ] {
        let answer = running.by_datagram(&bytes(name, of)).await;
        assert_eq!(shown(&answer), wanted, "{name} {of}");
        assert_eq!((answer.metadata.id, answer.metadata.recursion_available), (4711, false));
        assert_eq!(answer.queries, question(name, of).queries, "the question as it was asked");
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_question_gets_an_error_or_nothing_and_harms_nobody() {
    let running = Running::with(records(1), Upstreams::default()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut an_answer = question("i-0.web.a.p.bosh.", RecordType::A);
    an_answer.metadata.message_type = MessageType::Response;
    for noise in [&b""[..], b"hello", &[0xff; 600], &an_answer.to_vec().unwrap()] {
        socket.send_to(noise, running.address).await.unwrap();
    }
    let mut cut = bytes("i-0.web.a.p.bosh.", RecordType::A);
    cut.truncate(20);
    assert_eq!(shown(&running.by_datagram(&cut).await), "FormErr");
    let mut update = question("bosh.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    let said = running.by_datagram(&update.to_vec().unwrap()).await;
    assert!(matches!(said.metadata.response_code, ResponseCode::NotImp | ResponseCode::FormErr), "{said:?}");
    let answer = running.by_datagram(&bytes("i-0.web.a.p.bosh.", RecordType::A)).await;
    assert_eq!(shown(&answer), "NoError 0 10.0.0.1");
    running.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_is_asked_for_over_a_connection() {
    let running = Running::with(records(300), Upstreams::default()).await;
    let asked = bytes("q-s4.web.a.p.bosh.", RecordType::A);
    let answer = running.bytes_by_datagram(&asked).await;
    assert!(answer.len() <= 512);
    assert!(Message::from_vec(&answer).unwrap().metadata.truncation);
    // Who takes more gets more.
    let few = Running::with(records(100), Upstreams::default()).await;
    let mut large = question("q-s4.web.a.p.bosh.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(8000);
    large.set_edns(edns);
    let answer = few.bytes_by_datagram(&large.to_vec().unwrap()).await;
    assert!(answer.len() > 512 && answer.len() <= 4096);
    assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 100);
    few.stop().await;
    // One connection, several questions.
    let other = bytes("i-7.web.a.p.bosh.", RecordType::A);
    let answers = running.by_connection(&[asked, other]).await;
    assert_eq!((answers[0].answers.len(), shown(&answers[1]).as_str()), (300, "NoError 0 10.0.0.8"));
    assert!(!answers[0].metadata.truncation);
    running.stop().await;
}

#[tokio::test]
async fn names_of_others_are_asked_of_those_who_know() {
    // A name server that knows one name, and one that is silent in front of it.
    let other = Running::with(Records::default(), Upstreams::default()).await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = [silent.local_addr().unwrap(), other.address];
    let running = Running::with(records(1), Upstreams::at(&servers)).await;
    let asked = bytes("example.com.", RecordType::A);
    let answer = running.by_datagram(&asked).await;
    assert_eq!((shown(&answer).as_str(), answer.metadata.id), ("Refused", 4711), "the other one's word");
    assert_eq!(shown(&running.by_connection(std::slice::from_ref(&asked)).await[0]), "Refused");
    // Ours never leave the machine, not even those that there are not.
    let ours = running.by_datagram(&bytes("nobody.web.a.p.bosh.", RecordType::A)).await;
    assert_eq!((shown(&ours).as_str(), ours.metadata.recursion_available), ("NXDomain", true));
    running.stop().await;
    let lonely = Running::with(records(1), Upstreams::at(&servers[..1])).await;
    assert_eq!(shown(&lonely.by_datagram(&asked).await), "ServFail", "nobody answers in time");
    lonely.stop().await;
    other.stop().await;
}
