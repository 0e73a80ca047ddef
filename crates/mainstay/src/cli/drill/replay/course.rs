//! The faults of a script at their times, and what is told meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use ::lab::drill::replay::{self, Cue, Scene};
use ::lab::drill::{Step, Writing};
use decide::story::{self, Chapter, REST_AFTER};
use model::NodeName;
use model::script::{Fault, ScriptFile, Target};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::super::output::note;
use super::super::stage::Stage;
use super::witness::Witness;

/// How often the system is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Writes count as acknowledged when one was so of late.
const OF_LATE: Duration = Duration::from_secs(1);

/// How much longer than in the script it may take until things stand as they should: real servers start and copy slowly.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long something may still go wrong after the last step.
const AFTER: Duration = Duration::from_secs(5);

/// A script being played.
pub(super) struct Course<'a> {
    stage: &'a Stage,
    file: &'a ScriptFile,
    witness: Witness,
    writing: Writing,
    /// The script's nodes, the first primary first.
    cast: Vec<NodeName>,
    /// When each chapter began (microseconds since the Unix epoch), with what was done; their events are sorted in later.
    chapters: Vec<(i64, Chapter)>,
    /// Whom the steps that have begun hit, until they are over.
    begun: BTreeMap<usize, (Fault, NodeName)>,
}

impl<'a> Course<'a> {
    pub(super) fn new(stage: &'a Stage, file: &'a ScriptFile, writing: Writing) -> Result<Self, String> {
        let primary = writing.before.primary.clone().ok_or("the system has no primary")?;
        let members = stage.database().members.iter().filter(|node| **node != primary);
        let others = stage.system().nodes.keys().filter(|node| !stage.database().members.contains(*node));
        let cast = members.chain(others).cloned();
        let begun_us = effects::clock::wall_us();
        Ok(Self {
            stage,
            file,
            witness: Witness::new(stage.database_name().clone(), stage.sockets().clone(), begun_us),
            cast: std::iter::once(primary.clone()).chain(cast).collect(),
            writing,
            chapters: vec![(begun_us, Chapter::default())],
            begun: BTreeMap::new(),
        })
    }

    /// Plays all scenes, and waits until things stand as they should afterwards.
    pub(super) async fn play(&mut self, scenes: &[Scene]) -> Result<(), String> {
        // Nothing has failed before the first scene: its time is how long the simulator takes to found the system.
        self.rest().await;
        for (number, scene) in scenes.iter().enumerate() {
            let next = scenes.get(number + 1).map(|next| next.at - scene.at);
            self.chapters.push((effects::clock::wall_us(), Chapter::default()));
            self.act(&scene.cues).await?;
            // What took its time to do does not shorten the time that the system has.
            self.watch_until(Instant::now() + next.unwrap_or(AFTER)).await;
            if next.is_none_or(|next| next >= REST_AFTER) {
                self.rest().await;
            }
        }
        Ok(())
    }

    async fn watch_until(&mut self, until: Instant) {
        while Instant::now() < until {
            self.witness.look().await;
            sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
        }
    }

    /// Writes down how things stand, once they stand as the script says or do not come to it.
    async fn rest(&mut self) {
        let patience_ends = Instant::now() + PATIENCE;
        loop {
            self.witness.look().await;
            let rest = self.witness.rest(self.writing.flows(OF_LATE));
            if let Some((_, chapter)) = self.chapters.last_mut() {
                chapter.rest = Some(rest);
            }
            let (told, expected) = (self.told(), &self.file.story);
            if expected.starts_with(&told) || is_apart(&told, expected) || Instant::now() >= patience_ends {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Does what begins and takes back what ends.
    async fn act(&mut self, cues: &[Cue]) -> Result<(), String> {
        let mut beginning = vec![];
        for cue in cues {
            match cue {
                Cue::Begin(number) => {
                    let fault = self.file.script.steps[*number].fault;
                    let node = self.node(fault)?;
                    self.tell(self.words(fault, &node));
                    self.begun.insert(*number, (fault, node.clone()));
                    beginning.push((fault, node));
                }
                Cue::End(number) => {
                    let Some((fault, node)) = self.begun.remove(number) else { continue };
                    self.tell(format!("over: {}", self.words(fault, &node)));
                    self.apply(&replay::end(&(fault, node))).await?;
                }
            }
        }
        self.apply(&replay::begin(&beginning)).await
    }

    async fn apply(&self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            let evidence = self.stage.apply(step).await.map_err(|why| format!("could not {step}: {why}"))?;
            note(&format!("{step}: {evidence}\n"));
        }
        Ok(())
    }

    fn tell(&mut self, words: String) {
        if let Some((_, chapter)) = self.chapters.last_mut() {
            chapter.steps.push(words);
        }
    }

    /// Whom a fault hits now.
    fn node(&self, fault: Fault) -> Result<NodeName, String> {
        let nobody = |target: Target| format!("nobody is {target}");
        match fault.target() {
            Some(Target::Node(number)) => {
                self.cast.get(number).cloned().ok_or_else(|| nobody(Target::Node(number)))
            }
            Some(Target::Standby) => self.witness.confirming().ok_or_else(|| nobody(Target::Standby)),
            Some(Target::Primary) | None => self.witness.primary().ok_or_else(|| nobody(Target::Primary)),
        }
    }

    /// The fault in the script's words, with the name of the real node.
    fn words(&self, fault: Fault, node: &NodeName) -> String {
        let Some(number) = self.cast.iter().position(|one| one == node) else { return fault.to_string() };
        let name = Target::Node(number).to_string();
        let text = fault.at(number).to_string();
        text.split(' ')
            .map(|word| if word == name { node.as_str() } else { word })
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The story so far.
    fn told(&self) -> Vec<String> {
        let mut chapters: Vec<Chapter> = self.chapters.iter().map(|(_, chapter)| chapter.clone()).collect();
        for event in self.witness.events() {
            let number = self.chapters.partition_point(|(begun_us, _)| *begun_us <= event.at_us);
            if let Some(chapter) = chapters.get_mut(number.saturating_sub(1)) {
                chapter.events.push(event.clone());
            }
        }
        story::tell(self.stage.database_name(), &chapters)
    }

    /// The whole story, and who wrote meanwhile.
    pub(super) fn end(self) -> (Vec<String>, Writing) {
        (self.told(), self.writing)
    }
}

/// Whether what happened before the last line, which says how things stand, is already another story: that does not come back
/// to the expected one. Who is called what is known at the end only.
fn is_apart(told: &[String], expected: &[String]) -> bool {
    let anybody = |line: &String| line.replace(|c: char| c.is_ascii_uppercase(), "?");
    let before = told.len().saturating_sub(1);
    let happened = told.iter().take(before).map(anybody);
    !happened.eq(expected.iter().take(before).map(anybody))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_story_is_known_by_what_happened_and_not_by_how_things_stand_in_the_middle() {
        let lines = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let expected = lines("=> A leads/power off B/term 2: C is the primary/=> C leads");
        assert!(!is_apart(&lines("=> A leads/power off C/=> nobody leads after A"), &expected));
        assert!(is_apart(&lines("=> A leads/power off B/term 2: C restarts in place/=> C leads"), &expected));
        assert!(is_apart(&lines("=> A leads/switch over/=> A leads"), &expected));
        assert!(!is_apart(&expected, &expected));
        assert!(is_apart(
            &lines("=> A leads/power off B/term 2: C is the primary/=> C leads/a line more/=>"),
            &expected
        ));
    }
}
