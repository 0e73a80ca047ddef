//! Whether an address that no supervisor knows answers the proxy's own questions as it should.

use model::routes::Answering;
use model::system::Health;

/// What is known of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    answering: Answering,
    /// Answers in a row that speak against that.
    against: u32,
    /// Whether somebody asks it.
    attended: bool,
}

impl Asked {
    /// Whether it may take requests. One that has answered nothing yet may not: what was never seen to work is asked
    /// first, and not with a client's request while others answer.
    pub(super) fn is_good(&self) -> bool {
        match self.answering {
            Answering::Good => true,
            Answering::Unknown | Answering::Bad { .. } => false,
        }
    }

    /// What is told of it.
    pub(super) fn answering(&self) -> &Answering {
        &self.answering
    }

    /// Whether somebody has to begin asking it; from now on somebody does.
    pub(super) fn attend(&mut self) -> bool {
        !std::mem::replace(&mut self.attended, true)
    }

    /// Takes in one answer, or what was wrong with it. True: it takes requests from now on and did not before.
    pub(super) fn answered(&mut self, answer: Result<(), String>, health: &Health) -> bool {
        let speaks_for = match (&self.answering, &answer) {
            (Answering::Good, Ok(())) | (Answering::Bad { .. }, Err(_)) => true,
            (Answering::Good, Err(_)) | (Answering::Bad { .. }, Ok(())) | (Answering::Unknown, _) => false,
        };
        self.against = if speaks_for { 0 } else { self.against + 1 };
        match answer {
            Ok(()) if !self.is_good() && self.against >= health.healthy_after => {
                (self.answering, self.against) = (Answering::Good, 0);
                true
            }
            Err(because) if speaks_for || self.against >= health.unhealthy_after => {
                (self.answering, self.against) = (Answering::Bad { because }, 0);
                false
            }
            Ok(()) | Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::system::Probe;

    use super::*;

    fn after(answers: &[Result<(), &str>]) -> (Answering, usize) {
        let health = Health {
            probe: Probe::Tcp,
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
            restart_after: Duration::from_secs(10),
        };
        let mut asked = Asked::default();
        let became = answers.iter().filter(|answer| asked.answered(answer.map_err(str::to_owned), &health));
        let became = became.count();
        (asked.answering().clone(), became)
    }

    #[test]
    fn so_many_answers_in_a_row_as_the_file_says_change_what_is_thought_of_it() {
        let bad = |because: &str| Answering::Bad { because: because.to_owned() };
        assert_eq!(after(&[Ok(())]), (Answering::Unknown, 0));
        assert_eq!(after(&[Ok(()), Ok(())]), (Answering::Good, 1));
        assert_eq!(after(&[Ok(()), Ok(()), Ok(()), Ok(())]), (Answering::Good, 1), "it becomes so once");
        assert_eq!(
            after(&[Ok(()), Ok(()), Err("a"), Err("b"), Ok(()), Err("c"), Err("d")]).0,
            Answering::Good
        );
        assert_eq!(after(&[Ok(()), Ok(()), Err("a"), Err("b"), Err("c")]).0, bad("c"));
        assert_eq!(after(&[Err("a"), Err("b"), Err("c"), Err("d")]).0, bad("d"), "the newest reason");
        assert_eq!(after(&[Err("a"), Err("b"), Err("c"), Ok(()), Err("d"), Ok(())]).0, bad("d"));
        assert_eq!(after(&[Err("a"), Err("b"), Err("c"), Ok(()), Ok(())]), (Answering::Good, 1));
    }
}
