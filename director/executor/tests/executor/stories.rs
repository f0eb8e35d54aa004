//! Tasks that nothing disturbs.

use model::task::TaskState;

use crate::artifacts::Shape;
use crate::summary::summary;
use crate::world::TestWorld;

#[tokio::test]
async fn a_fresh_deploy_compiles_creates_and_starts() {
    let world = TestWorld::seed().await;
    let ended = world.run(Shape::default().deploy()).await.done();
    println!("{:#?}\n{}", ended.lines(), summary(&world));
    assert_eq!(ended.task.state, TaskState::Done);
}
