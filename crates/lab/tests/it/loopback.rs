//! Without root: the same nodes on loopback addresses.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use lab::fault::CutOptions;
use lab::{Data, Lab, Mode, Options};

use crate::support::{Bench, STAND_IN, Traces, eventually, free_port, node};

/// The user without rights (`nobody` on Debian).
const NOBODY: &str = "65534";

#[test]
fn another_user_runs_a_system_without_any_right() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    // The build directory may be closed to others.
    let stand_in = bench.directory.path().join("stand-in");
    fs::copy(STAND_IN, &stand_in).unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    let port = free_port();
    let arguments = [bench.base().display().to_string(), bench.file.display().to_string(), port.to_string()];
    let said = as_nobody(&stand_in, "up", &arguments);
    assert!(said.status.success(), "{said:?}");
    let addresses = addresses(&said);
    assert_eq!(addresses.len(), 8);
    assert!(addresses.values().all(IpAddr::is_loopback), "{addresses:?}");
    for ((name, _), address) in &addresses {
        let address = SocketAddr::new(*address, port);
        eventually("it answers", String::new, || {
            greeting(address).is_some_and(|said| said.starts_with(name.as_str()))
        });
    }
    let again = as_nobody(&stand_in, "up", &arguments);
    assert!(String::from_utf8_lossy(&again.stderr).contains("already running"), "{again:?}");
    let end = as_nobody(&stand_in, "down", &[arguments[0].clone(), bench.name().to_string()]);
    assert!(end.status.success(), "{end:?}");
    fs::remove_dir(bench.base()).unwrap();
    assert_eq!(Traces::of(&bench), before);
}

#[test]
fn loopback_nodes_are_killed_frozen_and_started() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let port = free_port();
    let mut options = Options { loopback: true, ..bench.options() };
    options.command.pop();
    options.command.push(port.to_string());
    let limits = Lab::limits(&bench.system, &options).unwrap();
    assert!(limits.contains("the gate") && limits.contains("cut"), "{limits}");
    let mut lab = Lab::up(&bench.system, &bench.file, &options).unwrap();
    assert_eq!(lab.mode(), Mode::Loopback);
    let e1 = node("e1");
    let address = SocketAddr::new(lab.node(&e1).unwrap().address().unwrap(), port);
    eventually("it answers", String::new, || greeting(address).is_some());
    let cut = lab.cut_node(&e1, &CutOptions::whole()).unwrap_err().to_string();
    assert!(cut.starts_with("cutting links is not possible here"), "{cut}");
    lab.freeze_node(&e1, false).unwrap();
    assert!(lab.is_frozen(&e1).unwrap());
    assert_eq!(greeting(address), None);
    lab.thaw_node(&e1).unwrap();
    eventually("it goes on", String::new, || greeting(address).is_some());
    lab.kill_node(&e1).unwrap();
    assert!(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err());
    lab.start_node(&e1).unwrap();
    eventually("it answers again", String::new, || greeting(address).is_some());
    bench.down(Data::Keep);
    assert!(Traces::of(&bench).processes.is_empty());
    let other = Lab::up(&bench.system, &bench.file, &bench.options()).unwrap_err().to_string();
    assert!(other.contains("had loopback addresses"), "{other}");
    bench.down(Data::Remove);
    assert_eq!(Traces::of(&bench).processes, before.processes);
    assert_eq!(Traces::of(&bench).files, before.files);
}

#[test]
fn loopback_nodes_set_no_rules_of_the_machine_not_even_as_root() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let script =
        "nft add table inet mainstay_test 2>{root}/said && echo allowed >{root}/said; exec sleep 1000";
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let lab =
        Lab::up(&bench.system, &bench.file, &Options { loopback: true, command, ..bench.options() }).unwrap();
    let said = lab.root(&node("e1")).join("said");
    let read = || fs::read_to_string(&said).unwrap_or_default();
    eventually("nft has ended", read, || !read().is_empty());
    assert!(read().contains("not permitted"), "{}", read());
    bench.down(Data::Remove);
    assert_eq!(Traces::of(&bench), before);
}

fn as_nobody(stand_in: &Path, word: &str, arguments: &[String]) -> Output {
    let user = format!("--reuid={NOBODY}");
    let group = format!("--regid={NOBODY}");
    let mut command = Command::new("setpriv");
    command.args([user.as_str(), &group, "--clear-groups"]).arg(stand_in).arg(word).args(arguments);
    command.output().unwrap()
}

fn addresses(output: &Output) -> BTreeMap<(String, String), IpAddr> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let parse = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        ((words[0].to_owned(), words[1].to_owned()), words[2].parse().unwrap())
    };
    text.lines().map(parse).collect()
}

fn greeting(address: SocketAddr) -> Option<String> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(300))).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}
