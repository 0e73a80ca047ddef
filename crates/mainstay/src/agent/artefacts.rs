//! The artefacts of releases on this node: what is missing is copied from whoever has it, what nobody wants is removed.

use std::collections::BTreeSet;
use std::time::Duration;

use decide::agent::Input;
use effects::artefact::{self, ArtefactError};
use effects::disposable;
use model::NodeName;
use model::release::{Digest, Releases};
use tokio::sync::watch;
use transport::RpcPool;

use super::{Places, Shared, api};
use crate::api::{Refused, Reply, Request, hex, unhex};

/// Time between two looks for what is missing, while something is.
const PAUSE: Duration = Duration::from_millis(300);

/// How long one piece may take to be written or read.
const PIECE_LIMIT: Duration = Duration::from_secs(10);

/// How long checking and unpacking may take.
const UNPACK_LIMIT: Duration = Duration::from_secs(300);

/// The handle that the mind's hands hold.
pub(super) struct Artefacts {
    wanted: watch::Sender<Option<Releases>>,
}

impl Artefacts {
    pub(super) fn start(shared: &Shared, rpc: &RpcPool) -> Self {
        let (wanted, changes) = watch::channel(None);
        tokio::spawn(keep(shared.clone(), rpc.clone(), changes));
        Self { wanted }
    }

    /// Keeps the artefacts of these releases from now on.
    pub(super) fn keep(&self, releases: Releases) {
        self.wanted.send_replace(Some(releases));
    }
}

/// Where an artefact lies unpacked, if it does.
pub(super) fn directory(places: &Places, digest: &Digest) -> Option<String> {
    let files = root(places).join(digest.as_str()).join("files");
    files.is_dir().then(|| files.display().to_string())
}

fn root(places: &Places) -> std::path::PathBuf {
    places.root.join("artefacts")
}

/// Runs `work` on the artefacts of this node, on a thread of its own.
async fn with<T: Send + 'static>(
    shared: &Shared,
    limit: Duration,
    work: impl FnOnce(artefact::Artefacts) -> Result<T, ArtefactError> + Send + 'static,
) -> Result<T, String> {
    let root = root(&shared.places);
    let done = disposable::run("artefacts", limit, move || work(artefact::Artefacts::open(&root)?)).await;
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

async fn keep(shared: Shared, rpc: RpcPool, mut changes: watch::Receiver<Option<Releases>>) {
    if changes.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        let releases = changes.borrow_and_update().clone().unwrap_or_default();
        let wanted: BTreeSet<Digest> = releases.values().flat_map(model::release::Service::kept).collect();
        let missing = match settle(&shared, &rpc, wanted).await {
            Ok(missing) => missing,
            Err(because) => {
                tracing::warn!(%because, "the artefacts of releases cannot be looked after");
                true
            }
        };
        if missing {
            let _ = tokio::time::timeout(PAUSE, changes.changed()).await;
        } else if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Fetches what is missing and removes what is too much; whether anything is still missing.
async fn settle(shared: &Shared, rpc: &RpcPool, wanted: BTreeSet<Digest>) -> Result<bool, String> {
    let mut have = with(shared, PIECE_LIMIT, |store| store.complete()).await?;
    shared.inputs.send(Input::Artefacts(have.clone()));
    for digest in wanted.difference(&have.clone()) {
        match fetch(shared, rpc, digest).await {
            Ok(()) => drop(have.insert(digest.clone())),
            Err(because) => tracing::info!(%digest, %because, "an artefact cannot be copied yet"),
        }
    }
    let all = wanted.is_subset(&have);
    if all {
        with(shared, UNPACK_LIMIT, move |store| store.keep(&wanted)).await?;
        have = with(shared, PIECE_LIMIT, |store| store.complete()).await?;
    }
    shared.inputs.send(Input::Artefacts(have));
    Ok(!all)
}

/// Copies an artefact from a node that has it; goes on where an earlier attempt ended.
async fn fetch(shared: &Shared, rpc: &RpcPool, digest: &Digest) -> Result<(), String> {
    let of = digest.clone();
    let holders = shared.inputs.ask(move |agent| agent.holders(&of)).await.unwrap_or_default();
    let mut because = "no node that is heard has it".to_owned();
    for holder in holders {
        match fetch_from(shared, rpc, digest, &holder).await {
            Ok(()) => return Ok(()),
            Err(error) => because = format!("from {holder}: {error}"),
        }
    }
    Err(because)
}

async fn fetch_from(
    shared: &Shared,
    rpc: &RpcPool,
    digest: &Digest,
    holder: &NodeName,
) -> Result<(), String> {
    loop {
        let of = digest.clone();
        let offset = with(shared, PIECE_LIMIT, move |store| Ok(store.received(&of))).await?;
        let request = Request::ArtefactPiece { digest: digest.clone(), offset };
        let piece = match api::forward(rpc, holder, &request).await {
            Reply::Piece(piece) => unhex(&piece).ok_or("the piece cannot be read")?,
            Reply::Refused(refused) => return Err(refused.because),
            Reply::Overview(_)
            | Reply::Events(_)
            | Reply::System { .. }
            | Reply::Certificate(_)
            | Reply::Dsn(_)
            | Reply::Logs(_)
            | Reply::Jobs(_)
            | Reply::JobRun(_)
            | Reply::Program(_)
            | Reply::Done(_) => return Err("it answered something else".to_owned()),
        };
        if piece.is_empty() {
            return finish(shared, digest).await;
        }
        receive(shared, digest, offset, piece).await?;
    }
}

async fn receive(shared: &Shared, digest: &Digest, offset: u64, piece: Vec<u8>) -> Result<(), String> {
    let of = digest.clone();
    with(shared, PIECE_LIMIT, move |store| store.receive(&of, offset, &piece)).await
}

async fn finish(shared: &Shared, digest: &Digest) -> Result<(), String> {
    let of = digest.clone();
    with(shared, UNPACK_LIMIT, move |store| store.finish(&of)).await
}

/// Answers another node that wants a piece.
pub(super) async fn piece(shared: &Shared, digest: Digest, offset: u64) -> Reply {
    match with(shared, PIECE_LIMIT, move |store| store.piece(&digest, offset)).await {
        Ok(piece) => Reply::Piece(hex(&piece)),
        Err(because) => Reply::refused(because, "the node looks for another one that has it"),
    }
}

/// Takes a piece that an operator sends; an empty one at the end. Answers how many bytes are there.
pub(super) async fn take(shared: &Shared, digest: Digest, offset: u64, piece: &str) -> Reply {
    let refused =
        |because: String| Reply::Refused(Refused { because, hint: "send the release again".to_owned() });
    let Some(piece) = unhex(piece) else { return refused("the piece cannot be read".to_owned()) };
    if directory(&shared.places, &digest).is_some() {
        return Reply::Done("complete".to_owned());
    }
    if !piece.is_empty() {
        // What an attempt that was broken off has left is sent again.
        let of = digest.clone();
        let begun = with(
            shared,
            PIECE_LIMIT,
            move |store| {
                if offset == 0 { store.forget_received(&of) } else { Ok(()) }
            },
        );
        return match begun.await {
            Ok(()) => match receive(shared, &digest, offset, piece).await {
                Ok(()) => Reply::Done("received".to_owned()),
                Err(because) => refused(because),
            },
            Err(because) => refused(because),
        };
    }
    match finish(shared, &digest).await {
        Ok(()) => {
            match with(shared, PIECE_LIMIT, |store| store.complete()).await {
                Ok(have) => shared.inputs.send(Input::Artefacts(have)),
                Err(because) => return refused(because),
            }
            Reply::Done("complete".to_owned())
        }
        Err(because) => refused(because),
    }
}
