//! Containers of instances in the records of a machine's engine, when the node that ran them has died.
//!
//! All nodes of a lab share the machine's engine, which believes of a machine that never boots that what it started goes on.
//! It looks for processes by numbers that meant something in the dead node's namespace only; asked in a new and empty one
//! it finds that nothing runs.

use std::io;
use std::path::PathBuf;
use std::thread;

use effects::service::container::remove_recorded;

use crate::manifest::Mode;

/// Starts a program as the second process of a machine in which nothing else runs (unshare(1)).
const APART: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

/// Removes what the nodes with these directories have left there. Before their records go.
pub(crate) fn remove(mode: Mode, nodes: Vec<PathBuf>) {
    // Without namespaces they run on, and the numbers are the machine's.
    let within: &[&str] = match mode {
        Mode::Namespaces => &APART,
        Mode::Loopback => &[],
    };
    // A thread of its own: the caller may have a runtime.
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            for node in &nodes {
                remove_recorded(&node.join("state/processes"), within).await?;
            }
            Ok::<_, io::Error>(())
        })
    };
    if let Ok(Err(error)) = thread::spawn(work).join() {
        tracing::warn!(%error, "containers of instances may be left");
    }
}
