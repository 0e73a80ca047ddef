//! The proxies: ours, HAProxy and nginx, each as it comes and as an expert would set it up.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use model::routes::InstanceRouteState::Ready;
use tempfile::TempDir;

use crate::agent::{Agent, free_address, instance, service};
use crate::site::answers;

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Haproxy,
    HaproxyTuned,
    Nginx,
    NginxTuned,
}

pub(crate) const KINDS: [Kind; 5] =
    [Kind::Ours, Kind::Haproxy, Kind::HaproxyTuned, Kind::Nginx, Kind::NginxTuned];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "mainstay",
            Self::Haproxy => "haproxy",
            Self::HaproxyTuned => "haproxy, tuned",
            Self::Nginx => "nginx",
            Self::NginxTuned => "nginx, tuned",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Ours => "",
            Self::Haproxy | Self::HaproxyTuned => "haproxy",
            Self::Nginx | Self::NginxTuned => "nginx",
        }
    }

    /// Whether it can be run here.
    pub(crate) fn is_there(self) -> bool {
        self == Self::Ours || Command::new(self.program()).arg("-v").output().is_ok()
    }
}

/// A running proxy; ends when dropped.
pub(crate) struct Front {
    process: Child,
    pub(crate) listen: SocketAddr,
    _directory: TempDir,
}

impl Front {
    /// Starts a proxy before `instances`, on processor `core` alone if one is given.
    pub(crate) async fn start(kind: Kind, instances: &[SocketAddr], core: Option<usize>) -> Self {
        let (directory, listen) = (tempfile::tempdir().unwrap(), free_address());
        let file = |name: &str| directory.path().join(name).display().to_string();
        let process = match kind {
            Kind::Ours => {
                let this = std::env::current_exe().unwrap().display().to_string();
                spawn(core, &[&this, "serve", &file("proxy.sock"), &file("routes.json")])
            }
            Kind::Haproxy | Kind::HaproxyTuned => {
                std::fs::write(file("conf"), haproxy(kind, listen, instances)).unwrap();
                spawn(core, &["haproxy", "-db", "-f", &file("conf")])
            }
            Kind::Nginx | Kind::NginxTuned => {
                let conf = nginx(kind, listen, instances, &directory.path().display().to_string());
                std::fs::write(file("conf"), conf).unwrap();
                spawn(core, &["nginx", "-c", &file("conf"), "-p", &file("")])
            }
        };
        let front = Self { process, listen, _directory: directory };
        if kind == Kind::Ours {
            let mut agent = Agent::connect(&front._directory.path().join("proxy.sock")).await;
            let named = (1..).zip(instances);
            let endpoints =
                named.map(|(number, address)| instance(&format!("web-{number}"), *address, Ready));
            assert_eq!(agent.apply(1, service(listen, endpoints.collect())).await, [""; 0]);
        }
        answers(listen).await;
        front
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Starts a program, on one processor if one is given.
pub(crate) fn spawn(core: Option<usize>, words: &[&str]) -> Child {
    let mut command = match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string()]).args(words);
            command
        }
        None => {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        }
    };
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    started.unwrap_or_else(|error| panic!("{}: {error}", words[0]))
}

/// Debian's own timeouts and a plain `check`; tuned: every means that HAProxy has against the four faults.
fn haproxy(kind: Kind, listen: SocketAddr, instances: &[SocketAddr]) -> String {
    let tuned = kind == Kind::HaproxyTuned;
    let (connect, server) = if tuned { ("200ms", "1s") } else { ("5s", "50s") };
    let mut conf = format!(
        "global\n nbthread 1\ndefaults\n mode http\n timeout client 50s\n timeout connect {connect}\n \
         timeout server {server}\n option forwardfor\n"
    );
    if tuned {
        conf += " option redispatch 1\n retries 3\n retry-on all-retryable-errors\n option httpchk GET /\n \
                 default-server inter 100ms fall 2 rise 2 observe layer7 error-limit 5 on-error mark-down\n";
    }
    write!(conf, "frontend f\n bind {listen}\n default_backend b\nbackend b\n balance roundrobin\n").unwrap();
    for (number, address) in (1..).zip(instances) {
        writeln!(conf, " server s{number} {address} check").unwrap();
    }
    conf
}

/// What Debian's package says, with the servers put in; tuned: kept connections, short timeouts, the next server tried.
fn nginx(kind: Kind, listen: SocketAddr, instances: &[SocketAddr], directory: &str) -> String {
    let tuned = kind == Kind::NginxTuned;
    let fails = if tuned { " max_fails=2 fail_timeout=1s" } else { "" };
    let servers: String = instances.iter().map(|address| format!("  server {address}{fails};\n")).collect();
    let (keep, passing) = if tuned {
        (
            "  keepalive 256;\n",
            "   proxy_http_version 1.1;\n   proxy_set_header Connection \"\";\n   proxy_connect_timeout 200ms;\n   \
             proxy_read_timeout 1s;\n   proxy_next_upstream error timeout http_500 http_502 http_503 http_504;\n   \
             proxy_next_upstream_tries 3;\n",
        )
    } else {
        ("", "")
    };
    format!(
        "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log /dev/null;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 20000; }}\nhttp {{\n access_log off;\n keepalive_requests 1000000000;\n \
         client_body_temp_path {directory}/a;\n proxy_temp_path {directory}/b;\n fastcgi_temp_path {directory}/c;\n \
         uwsgi_temp_path {directory}/d;\n scgi_temp_path {directory}/e;\n upstream u {{\n{servers}{keep} }}\n \
         server {{\n  listen {listen};\n  location / {{\n   proxy_pass http://u;\n   \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n{passing}  }}\n }}\n}}\n"
    )
}
