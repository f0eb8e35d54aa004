//! No two leaders touch the world at the same time: once a later one has asked for something, an earlier one asks no more.
//! And no agent does anything for a leader that it knows to be over.

use model::Epoch;

use super::{Event, Invariant};

#[derive(Default)]
pub struct OneActor {
    newest: Epoch,
}

impl Invariant for OneActor {
    fn name(&self) -> &'static str {
        "one actor"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Asked { replica, epoch, what } => {
                if *epoch < self.newest {
                    return Err(format!(
                        "replica {replica} asks for {what} under epoch {epoch}, after epoch {} did",
                        self.newest
                    ));
                }
                self.newest = *epoch;
                Ok(())
            }
            Event::Obeyed { agent, epoch, known, what } if epoch < known => {
                Err(format!("agent {agent} did {what} under epoch {epoch}, and knew of epoch {known}"))
            }
            _ => Ok(()),
        }
    }
}
