//! The course of a whole bench: one system after another, each fault so many times.

use std::path::Path;

use effects::files::Lock;
use effects::postgres::Installation;
use model::SystemName;
use tokio::signal::unix::{SignalKind, signal};

use crate::cost::{self, Cost};
use crate::field::Field;
use crate::mainstay::{self, Mainstay};
use crate::peer::Peer;
use crate::raise::{self, Software};
use crate::seen::{Column, Seen};
use crate::variant::{Fault, Subject};
use crate::{Bench, Outcome, autofailover, table, versions};

/// A system that is up.
enum Running {
    Ours(Mainstay),
    Peer(Box<Field>),
}

/// Measures what was asked for, writes the files and prints the table. Takes everything down, also when a signal comes.
pub(crate) async fn run(args: Bench) -> Outcome<()> {
    let lock = args.out.join("peers.lock");
    std::fs::create_dir_all(&args.out).map_err(|e| format!("making {}: {e}", args.out.display()))?;
    let _alone =
        Lock::try_take(&lock).map_err(|e| e.to_string())?.ok_or("another bench of the peers runs")?;
    let done = tokio::select! {
        done = all(&args) => done,
        name = interrupted() => Err(format!("{name} ended the bench")),
    };
    down_all(&args.mainstay).await?;
    let (columns, versions) = done?;
    table::publish(&columns, &versions, &args.out)
}

/// Takes down whatever runs of any system.
pub(crate) async fn down_all(program: &Path) -> Outcome<()> {
    for subject in Subject::ALL {
        remove(subject, program).await?;
    }
    Ok(())
}

async fn remove(subject: Subject, program: &Path) -> Outcome<()> {
    let name = SystemName::new(subject.system());
    match subject {
        Subject::Mainstay => mainstay::remove(program, &name).await,
        Subject::Patroni(_) | Subject::AutoFailover(_) => {
            tokio::task::spawn_blocking(move || raise::remove(&name)).await.map_err(|e| e.to_string())?
        }
    }
}

/// What was measured of every system, and which versions that were.
async fn all(args: &Bench) -> Outcome<(Vec<Column>, String)> {
    let installation = Installation::find(None, None).await.map_err(|e| e.to_string())?;
    let software = Software::find(&args.patroni, installation.bin_dir)?;
    let versions = versions::all(&installation.version, &software.modules);
    let chosen = |subject: &&Subject| args.systems.is_empty() || args.systems.contains(subject);
    let mut columns = Vec::new();
    for group in Subject::GROUPS {
        let group: Vec<Subject> = group.iter().filter(chosen).copied().collect();
        match (group.as_slice(), args.apart) {
            ([one, other], false) => {
                let (one, other) =
                    tokio::join!(column(args, &software, *one), column(args, &software, *other));
                columns.extend([one?, other?]);
            }
            (group, _) => {
                for subject in group {
                    columns.push(column(args, &software, *subject).await?);
                }
            }
        }
    }
    columns.sort_by_key(|column| column.subject);
    Ok((columns, versions))
}

/// Everything about one system, and nothing of it left.
async fn column(args: &Bench, software: &Software, subject: Subject) -> Outcome<Column> {
    let mut column = Column::new(subject);
    if let Some(reason) = unavailable(subject, software) {
        column.missing.push(reason);
        return Ok(column);
    }
    // The others are measured all the same.
    if let Err(reason) = one(args, software, &mut column).await {
        eprintln!("{subject}: {reason}");
        raise::keep_logs(&SystemName::new(subject.system()), &args.out);
        column.missing.push(reason);
    }
    remove(subject, &args.mainstay).await?;
    Ok(column)
}

/// Why a system cannot be had on this machine.
fn unavailable(subject: Subject, software: &Software) -> Option<String> {
    match subject {
        Subject::Mainstay | Subject::Patroni(_) => None,
        Subject::AutoFailover(_) => autofailover::unavailable(&software.bin),
    }
}

/// Everything about one system.
async fn one(args: &Bench, software: &Software, column: &mut Column) -> Outcome<()> {
    let subject = column.subject;
    eprintln!("{subject}: setting up");
    let mut running = Running::up(args, subject, software).await?;
    column.set_up_s = Some(running.set_up_s());
    column.cost = running.cost().await;
    let chosen = |fault: &Fault| args.faults.is_empty() || args.faults.contains(fault);
    for fault in Fault::ALL.into_iter().filter(chosen) {
        for number in 1..=args.runs {
            eprintln!("{subject}: {fault}, run {number} of {}", args.runs);
            match running.measure(fault).await {
                Ok(seen) => {
                    report(subject, fault, &seen);
                    column.runs.entry(fault.name()).or_default().push(seen);
                }
                Err(reason) => {
                    eprintln!("{subject}: not measured: {reason}");
                    column.missing.push(format!("{fault}, run {number}: {reason}"));
                    raise::keep_logs(&SystemName::new(subject.system()), &args.out);
                    // A system that does not come back by itself is made anew for the next run.
                    running.down().await?;
                    running = Running::up(args, subject, software).await?;
                }
            }
        }
    }
    running.down().await
}

fn report(subject: Subject, fault: Fault, seen: &Seen) {
    let outage = seen.outage(fault).map_or_else(|| "for ever".to_owned(), |ms| format!("{ms:.0} ms"));
    eprintln!(
        "{subject}: {outage} without a write, {} errors, {} acknowledged, {} lost, {} doubled, {} -> {}",
        seen.errors, seen.acknowledged, seen.lost, seen.doubled, seen.primary_before, seen.primary_after
    );
}

impl Running {
    async fn up(args: &Bench, subject: Subject, software: &Software) -> Outcome<Self> {
        let name = SystemName::new(subject.system());
        Ok(match Peer::of(subject) {
            None => Self::Ours(Mainstay::up(name, &args.mainstay, &args.out).await?),
            Some(peer) => Self::Peer(Box::new(Field::up(name, peer, software).await?)),
        })
    }

    fn set_up_s(&self) -> f64 {
        match self {
            Self::Ours(ours) => ours.set_up.as_secs_f64(),
            Self::Peer(field) => field.set_up.as_secs_f64(),
        }
    }

    async fn cost(&self) -> Option<Cost> {
        let namespaces = match self {
            Self::Ours(ours) => cost::namespaces(&ours.lab().ok()?),
            Self::Peer(field) => cost::namespaces(&field.lab()),
        };
        cost::at_rest(&namespaces).await
    }

    async fn measure(&self, fault: Fault) -> Outcome<Seen> {
        match self {
            Self::Ours(ours) => ours.measure(fault).await,
            Self::Peer(field) => field.measure(fault).await.map(Seen::from),
        }
    }

    async fn down(self) -> Outcome<()> {
        match self {
            Self::Ours(ours) => ours.down().await,
            Self::Peer(field) => field.down().await,
        }
    }
}

/// Waits for a signal that asks this process to end.
async fn interrupted() -> &'static str {
    let wait = |kind| signal(kind).ok();
    let signals = (wait(SignalKind::interrupt()), wait(SignalKind::terminate()), wait(SignalKind::hangup()));
    let (Some(mut interrupt), Some(mut terminate), Some(mut hangup)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "an interrupt",
        _ = terminate.recv() => "a request to end",
        _ = hangup.recv() => "the end of the terminal",
    }
}
