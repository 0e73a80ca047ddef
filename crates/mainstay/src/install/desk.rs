//! Who may join: the book of tokens beside the authority, and the desk that redeems them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use model::NodeName;
use tokio::runtime::Handle;
use transport::{Admission, Authority, JoinDesk, JoinRequest, TokenBook};

use super::{AUTHORITY, InstallError, in_file};
use crate::agent::{Inputs, SystemRecord};

/// How long the lock of the book is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Changes the book of tokens in the authority's directory. The change is durable when this returns; nothing is changed
/// when `change` fails. The command line and the agent may do it at the same time.
pub(super) fn change_book<T, E: From<InstallError>>(
    directory: &Path,
    change: impl FnOnce(&mut TokenBook) -> Result<T, E>,
) -> Result<T, E> {
    let _alone = lock(&directory.join("tokens.lock"))?;
    let path = directory.join("tokens.json");
    let mut book = read(&path)?;
    let result = change(&mut book)?;
    let bytes = serde_json::to_vec_pretty(&book).map_err(std::io::Error::other).map_err(in_file(&path))?;
    effects::files::write_atomic(&path, &bytes, 0o600).map_err(in_file(&path))?;
    Ok(result)
}

fn lock(path: &Path) -> Result<effects::files::Lock, InstallError> {
    let begin = Instant::now();
    loop {
        match effects::files::Lock::try_take(path).map_err(in_file(path))? {
            Some(lock) => return Ok(lock),
            None if begin.elapsed() > LOCK_PATIENCE => {
                return Err(in_file(path)(std::io::Error::other("somebody else holds the lock")));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn read(path: &Path) -> Result<TokenBook, InstallError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(TokenBook::default()),
        Err(error) => Err(in_file(path)(error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(std::io::Error::other).map_err(in_file(path)),
    }
}

/// The words of a refusal.
struct Words(String);

impl From<InstallError> for Words {
    fn from(error: InstallError) -> Self {
        Self(format!("this node cannot decide: {error}"))
    }
}

/// Lets nodes in, on a node that holds the authority; refuses elsewhere.
pub(crate) struct Desk {
    /// This node.
    pub(crate) me: NodeName,
    /// Its directory.
    pub(crate) root: PathBuf,
    /// Its mind, which knows the system file in force and who is up.
    pub(crate) inputs: Inputs,
    /// What waits for the mind.
    pub(crate) runtime: Handle,
}

impl JoinDesk for Desk {
    fn admit(&self, request: &JoinRequest) -> Result<Admission, String> {
        let directory = super::state(&self.root, AUTHORITY);
        if !Authority::exists(&directory) {
            let because =
                "this node does not hold the system's authority; join through the node that made the token";
            return Err(because.to_owned());
        }
        let authority = Authority::load(&directory).map_err(|error| error.to_string())?;
        change_book(&directory, |book| self.decide(&authority, book, request)).map_err(|Words(words)| words)
    }
}

impl Desk {
    /// The token is looked at first: who has none learns nothing of the system.
    fn decide(
        &self,
        authority: &Authority,
        book: &mut TokenBook,
        request: &JoinRequest,
    ) -> Result<Admission, Words> {
        book.redeem(request, SystemTime::now()).map_err(|refusal| Words(refusal.to_string()))?;
        let node = &request.node;
        let known = self.runtime.block_on(
            self.inputs.ask(|agent| (agent.system().clone(), agent.generation(), agent.overview())),
        );
        let (system, generation, overview) =
            known.ok_or_else(|| Words("this agent is ending; try again with the same token".to_owned()))?;
        let Some(described) = system.nodes.get(node) else {
            return Err(Words(format!(
                "the system file in force has no node `{node}`; put one in force that has it: mainstay apply FILE"
            )));
        };
        let is_up = overview.nodes.get(node).is_some_and(|seen| seen.heard && seen.silent.is_none());
        if is_up || *node == self.me {
            return Err(Words(format!(
                "a node `{node}` is up already; two of one name would harm each other"
            )));
        }
        let addresses: Vec<_> = described.lines.values().copied().collect();
        let certificate_pem = authority
            .sign_csr(&request.csr_pem, node, &addresses)
            .map_err(|error| Words(error.to_string()))?;
        let system = serde_json::to_string(&SystemRecord { generation, system })
            .map_err(|error| Words(error.to_string()))?;
        tracing::info!(%node, from = %request.from, "a node has joined");
        Ok(Admission { certificate_pem, system })
    }
}
