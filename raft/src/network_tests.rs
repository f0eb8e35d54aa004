//! What a late answer says about who still follows.

use async_trait::async_trait;
use futures::stream::BoxStream;
use proto::peer::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::*;
use crate::connector::ConnectError;
use crate::peer::PeerConnector;

type Requests = BoxStream<'static, wire::AppendRequest>;
type Answer = Result<wire::AppendResponse, Status>;

/// A peer that hands what it is sent to the test, and answers what the test says.
struct Scripted {
    requests: mpsc::Sender<Requests>,
    answers: Mutex<Option<mpsc::Receiver<Answer>>>,
}

#[async_trait]
impl Peer for Scripted {
    async fn append(&self, requests: Requests) -> Result<BoxStream<'static, Answer>, Status> {
        assert!(self.requests.send(requests).await.is_ok(), "the test waits for it");
        Ok(ReceiverStream::new(self.answers.lock().unwrap().take().expect("one stream")).boxed())
    }

    async fn heartbeat(&self, _: wire::AppendRequest) -> Answer {
        unreachable!("not in this test")
    }

    async fn vote(&self, _: wire::VoteRequest) -> Result<wire::VoteResponse, Status> {
        unreachable!("not in this test")
    }

    async fn transfer_leader(
        &self,
        _: wire::TransferLeaderRequest,
    ) -> Result<wire::TransferLeaderResponse, Status> {
        unreachable!("not in this test")
    }

    async fn install_snapshot(
        &self,
        _: BoxStream<'static, wire::SnapshotChunk>,
    ) -> Result<wire::SnapshotResponse, Status> {
        unreachable!("not in this test")
    }

    async fn propose(&self, _: wire::ProposeRequest) -> Result<wire::ProposeResponse, Status> {
        unreachable!("not in this test")
    }

    async fn read_index(&self, _: wire::ReadIndexRequest) -> Result<wire::ReadIndexResponse, Status> {
        unreachable!("not in this test")
    }
}

struct One(Arc<Scripted>);

impl PeerConnector for One {
    fn peer(&self, _: u64, _: &str, _: Purpose) -> Result<Arc<dyn Peer>, ConnectError> {
        Ok(self.0.clone())
    }
}

/// A leader is paused between a request and its answer, and sends once more before it reads that answer. Both cover the
/// same entries: only their order tells which was answered.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_after_a_pause_counts_from_before_it() {
    let (opened, mut opening) = mpsc::channel(1);
    let (answer, answers) = mpsc::channel(4);
    let peer = Arc::new(Scripted { requests: opened, answers: Mutex::new(Some(answers)) });
    let acks = Arc::new(Acks::default());
    let peers = Arc::new(Peers::new(Arc::new(One(peer))));
    let network = Network { peers, stall: Duration::from_secs(60), acks: acks.clone() };
    let mut peer = network.client(2, &BasicNode::new("there"), Purpose::Append);
    let request = || AppendEntriesRequest {
        vote: Vote::new_committed(7, 1),
        prev_log_id: None,
        leader_commit: None,
        entries: Vec::new(),
    };
    let input = stream::iter([request(), request()]);
    let mut results = peer.stream_append(input, RPCOption::new(Duration::from_secs(1))).await.unwrap();
    let mut requests = opening.recv().await.unwrap();
    let followed = || acks.by_quorum(1, 7, &[std::collections::BTreeSet::from([1, 2])]);
    let matched = || {
        let outcome = wire::append_response::Outcome::Matched(wire::append_response::Matched { last: None });
        Ok(wire::AppendResponse { outcome: Some(outcome) })
    };

    let before = Instant::now();
    requests.next().await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    let after = Instant::now();
    requests.next().await.unwrap();
    answer.send(matched()).await.unwrap();
    assert!(matches!(results.next().await, Some(Ok(Ok(None)))));
    assert_eq!(followed(), Some(before), "it is the answer to what was sent before the pause");
    answer.send(matched()).await.unwrap();
    assert!(matches!(results.next().await, Some(Ok(Ok(None)))));
    assert_eq!(followed(), Some(after));
}
