//! The systemd unit of a node's agent.

use std::path::Path;

use model::NodeName;

/// Its name.
pub const UNIT: &str = "mainstay.service";

/// The unit that runs `program` as the agent of `node` with its files in `root` (systemd.service(5)).
pub fn unit(program: &Path, node: &NodeName, root: &Path) -> String {
    let (program, root) = (quoted(program), quoted(root));
    format!(
        "\
[Unit]
Description=Mainstay agent of node {node}
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={program} agent --node {node} --root {root}
Restart=always
RestartSec=1
# PostgreSQL, services and the proxy live on without the agent, which adopts them when it is back.
KillMode=process
OOMScoreAdjust=-900
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"
    )
}

/// A path as one word of a command line in a unit: `%` begins a specifier there, `$` a variable.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{text}\"")
}
