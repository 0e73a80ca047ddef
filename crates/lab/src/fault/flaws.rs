//! Bad links: some of what a node sends and gets is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use effects::clock::now;
use model::{DatabaseName, LineName, NodeName};

use super::{Evidence, Lines};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::network;
use crate::network::flaw::{self, Flaw};

/// How long a member may take to do a checkpoint.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(5);

/// A flaw as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveFlaw {
    /// The node whose link it is.
    pub node: NodeName,
    /// On this line.
    pub line: LineName,
    /// What is wrong.
    pub flaw: Flaw,
    /// Packets lost so far.
    pub packets: u64,
    /// When it ends by itself.
    pub expires: Option<Duration>,
}

impl Lab {
    /// Makes all links of a node bad, until they are mended, at the longest for `lasting`.
    pub fn spoil_links(&self, node: &NodeName, flaw: Flaw, lasting: Duration) -> Result<Evidence> {
        self.need_namespaces("bad links")?;
        let ports = self.ports(node, &Lines::All)?;
        let begun = now();
        flaw::spoil(&network::switch(self.system()), flaw, &ports, lasting)?;
        let what = format!("the switch loses {} from and to {node} for at most {lasting:?}", flaw.losses());
        Ok(Evidence::since(begun, what))
    }

    /// Makes all links of a node good again; tells how many packets were lost.
    pub fn mend_links(&self, node: &NodeName) -> Result<Evidence> {
        self.need_namespaces("mending links")?;
        let ports = self.ports(node, &Lines::All)?;
        let begun = now();
        let flaws: Vec<ActiveFlaw> = self.flaws()?.into_iter().filter(|flaw| flaw.node == *node).collect();
        flaw::mend(&network::switch(self.system()), &ports)?;
        let lost: u64 = flaws.iter().map(|flaw| flaw.packets).sum();
        let what = match lost {
            // A flaw that lost nothing was none: nothing is proved.
            0 if !flaws.is_empty() => String::new(),
            _ => format!("{} bad links of {node} mended after {lost} lost packets", flaws.len()),
        };
        Ok(Evidence::since(begun, what))
    }

    /// A checkpoint of every member that accepts connections: the first change of a page after it writes the whole page into
    /// the log (`full_page_writes`), so that what replication sends is long.
    ///
    /// # Errors
    /// When no member accepts one.
    pub fn checkpoint(&self, database: &DatabaseName) -> Result<()> {
        let doing = || format!("a checkpoint of {database}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LabError::io(doing))?;
        let sockets: Vec<PathBuf> = self.nodes().map(|(node, _)| self.socket(node, database)).collect();
        let done = runtime.block_on(async {
            let mut done = 0;
            for directory in &sockets {
                done += u32::from(checkpoint_at(directory).await.is_some());
            }
            done
        });
        match done {
            0 => {
                Err(LabError::NotPossible { what: doing(), why: "no member accepts connections".to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Where a member has its socket.
    fn socket(&self, node: &NodeName, database: &DatabaseName) -> PathBuf {
        self.root(node).join("run").join(format!("pg-{database}"))
    }

    /// All flaws at this moment, with what they have lost.
    pub fn flaws(&self) -> Result<Vec<ActiveFlaw>> {
        self.need_namespaces("bad links")?;
        let active = flaw::active(&network::switch(self.system()))?;
        let report = |((port, flaw), counted): ((String, Flaw), network::cut::Counted)| {
            let (node, line) = self.owner(&port)?;
            Some(ActiveFlaw { node, line, flaw, packets: counted.packets, expires: counted.expires })
        };
        Ok(active.into_iter().filter_map(report).collect())
    }
}

/// The port that a member's socket carries in its name.
fn port(directory: &Path) -> Option<u16> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix(".s.PGSQL.")?.parse().ok()).next()
}

async fn checkpoint_at(directory: &Path) -> Option<()> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(directory).port(port(directory)?).user("mainstay").dbname("postgres");
    config.connect_timeout(CHECKPOINT_LIMIT);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.ok()?;
    let connection = tokio::spawn(connection);
    let done = tokio::time::timeout(CHECKPOINT_LIMIT, client.batch_execute("CHECKPOINT")).await;
    connection.abort();
    done.ok()?.ok()
}
