//! The binary of the tests: plays the lab's own roles with the real code, and stands in for the agent as a node that
//! answers who it is.

use std::error::Error;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use model::system::{System, parse};
use model::{NodeName, SystemName};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "lab-node") {
        return lab::lab_node(&arguments[1..]);
    }
    let words: Vec<String> = arguments.into_iter().filter_map(|word| word.into_string().ok()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["answer", node, root, file, port] => answer(node, Path::new(root), Path::new(file), port),
        ["dial", address] => dial(address),
        ["wait", millis] => wait(millis),
        ["up", base, file, port] => up(Path::new(base), Path::new(file), port),
        ["down", base, system] => down(Path::new(base), system),
        ["freeze-volume", base, system, node, millis] => freeze_volume(Path::new(base), system, node, millis),
        _ => Err(format!("unknown words: {words:?}").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn read(file: &Path) -> Result<System, Box<dyn Error + Send + Sync>> {
    let checked = parse("test.toml", &std::fs::read(file)?).map_err(|invalid| format!("{invalid:?}"))?;
    Ok(checked.system)
}

/// Brings a system up with nodes that answer.
fn up(base: &Path, file: &Path, port: &str) -> Outcome {
    let program = std::env::current_exe()?;
    let command = [&program.display().to_string(), "answer", "{node}", "{root}", "{file}", port];
    let options = lab::Options {
        base: base.to_owned(),
        command: command.map(str::to_owned).to_vec(),
        program: program.clone(),
        ..lab::Options::default()
    };
    let lab = lab::Lab::up(&read(file)?, file, &options)?;
    for (name, node) in lab.nodes() {
        for (line, address) in &node.addresses {
            println!("{name} {line} {address}");
        }
    }
    Ok(())
}

fn down(base: &Path, system: &str) -> Outcome {
    Ok(lab::Lab::down_in(base, &SystemName::new(system), lab::Data::Remove)?)
}

/// Makes a disk hang and does not live to see the end of it.
fn freeze_volume(base: &Path, system: &str, node: &str, millis: &str) -> Outcome {
    let mut lab = lab::Lab::open_in(base, &SystemName::new(system))?;
    lab.freeze_volume(&NodeName::new(node), Duration::from_millis(millis.parse()?))?;
    std::process::abort()
}

/// Waits until a moment of the monotonic clock and prints how many milliseconds it took by the kernel's own clock.
fn wait(millis: &str) -> Outcome {
    let boot = || -> Result<f64, Box<dyn Error + Send + Sync>> {
        let uptime = std::fs::read_to_string("/proc/uptime")?;
        Ok(uptime.split(' ').next().unwrap_or_default().parse()?)
    };
    let begun = boot()?;
    thread::park_timeout(Duration::from_millis(millis.parse()?));
    println!("{:.0}", (boot()? - begun) * 1000.0);
    Ok(())
}

/// Prints what the other side says first.
fn dial(address: &str) -> Outcome {
    let limit = Duration::from_millis(400);
    let stream = TcpStream::connect_timeout(&address.parse()?, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    print!("{line}");
    Ok(())
}

// ---- a node that answers ----

/// On each of the node's addresses: TCP says the node's name and its process number and repeats what it gets; UDP writes
/// down that something came and repeats it. Whoever connects to the agent's socket keeps it. An orphan is left behind.
fn answer(node: &str, root: &Path, file: &Path, port: &str) -> Outcome {
    let system = read(file)?;
    let record = system.nodes.get(&NodeName::new(node)).ok_or("no such node")?;
    let port: u16 = port.parse()?;
    leave_orphan()?;
    let _socket = agent_socket(&root.join("run/agent.sock"))?;
    for address in record.lines.values().copied() {
        serve_tcp(node.to_owned(), address, port)?;
        serve_udp(address, port, root.join("heard"))?;
    }
    loop {
        thread::park();
    }
}

fn leave_orphan() -> Outcome {
    let mut shell = Command::new("sh").args(["-c", "sleep 1000 & exit 0"]).spawn()?;
    shell.wait()?;
    Ok(())
}

fn agent_socket(path: &Path) -> std::io::Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path)
}

fn serve_tcp(node: String, address: IpAddr, port: u16) -> Outcome {
    let listener = TcpListener::bind(SocketAddr::new(address, port))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let greeting = format!("{node} {}\n", std::process::id());
            thread::spawn(move || repeat(stream, &greeting));
        }
    });
    Ok(())
}

fn repeat(mut stream: TcpStream, greeting: &str) -> std::io::Result<()> {
    stream.write_all(greeting.as_bytes())?;
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

fn serve_udp(address: IpAddr, port: u16, heard: PathBuf) -> Outcome {
    let socket = UdpSocket::bind(SocketAddr::new(address, port))?;
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(&heard) {
                let _ = file.write_all(b".");
            }
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    Ok(())
}
