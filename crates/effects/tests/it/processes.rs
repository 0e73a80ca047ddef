//! Real programs: started detached, watched, adopted, run as tools.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use effects::process::{
    Exit, Found, OsUser, Process, ProcessFacts, ProcessId, Registry, Signal, Spawn, ToolCommand, ToolError,
    adopt, children_of, facts_of, processes_of, reap_strangers, run_tool, session_of, spawn, spawn_detached,
};

/// Kills a test's process with its session, also when the test fails.
struct Guard(Process);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.signal_session(Signal::KILL);
    }
}

fn shell(script: &str) -> Spawn {
    Spawn::new("/bin/sh", ["-c", script])
}

fn start(spec: &Spawn) -> Guard {
    Guard(spawn_detached(spec).expect("starts"))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what} did not become true within 10 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn the_exit_of_a_child_is_seen_at_once_and_leaves_no_zombie() {
    let child = start(&shell("exec sleep 1000"));
    assert!(child.0.is_alive());
    let begin = Instant::now();
    child.0.signal(Signal::KILL).unwrap();
    assert_eq!(child.0.exited().await, Exit::Signal(9));
    println!("kill seen after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_millis(200), "took {:?}", begin.elapsed());
    assert!(!child.0.is_alive());
    assert_eq!(facts_of(child.0.id().pid), None, "no zombie is left");
    assert!(child.0.signal(Signal::TERM).is_err());
}

#[tokio::test]
async fn a_dropped_process_lives_on_and_is_reaped_when_it_ends() {
    let process = spawn_detached(&shell("exec sleep 0.3")).unwrap();
    let id = process.id();
    drop(process);
    assert!(facts_of(id.pid).is_some());
    until("the process is gone", || facts_of(id.pid).is_none()).await;
}

#[tokio::test]
async fn a_tool_whose_caller_left_right_after_its_start_is_killed() {
    let marked = format!("4{:07}", std::process::id());
    let tool = || {
        let named = |facts: &ProcessFacts| facts.command_line().iter().any(|argument| *argument == *marked);
        processes_of(|facts| !facts.is_dead() && named(facts)).into_iter().next()
    };
    let mut running =
        Box::pin(run_tool(ToolCommand::new("sleep", [marked.as_str()], Duration::from_secs(60))));
    assert!(tokio::time::timeout(Duration::ZERO, &mut running).await.is_err());
    // Nothing is polled meanwhile: it has started, and who waits for it has not heard so yet.
    let begin = Instant::now();
    while tool().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(10), "it was not started");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
    drop(running);
    until("the tool is gone", || tool().is_none()).await;
}

#[tokio::test]
async fn a_program_inherits_nothing_but_what_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let script = "echo \"sid $(cut -d' ' -f6 /proc/$$/stat) pid $$\"; grep -E 'Sig(Blk|Ign)|Umask' /proc/self/status; \
                  ls -l /proc/$$/fd | sed -n 's/.* \\([0-9]* -> .*\\)/fd \\1/p'; echo \"cwd $(pwd)\"; echo oops >&2; env";
    // A descriptor without close-on-exec, as a careless parent would leave it to us.
    let leaked = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 20).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let spec = Spawn {
        env: vec![("GREETING".into(), "hello there".into())],
        cwd: Some(directory.path().to_owned()),
        log: Some(log.clone()),
        umask: 0o027,
        mark: Some("here".into()),
        ..shell(script)
    };
    let child = start(&spec);
    assert_eq!(child.0.exited().await, Exit::Code(0));
    let text = read(&log);
    println!("{text}");
    let pid = child.0.id().pid;
    for expected in [
        format!("sid {pid} pid {pid}"),
        format!("cwd {}", directory.path().display()),
        "Umask:\t0027".to_owned(),
        "SigBlk:\t0000000000000000".to_owned(),
        "SigIgn:\t0000000000000000".to_owned(),
        "fd 0 -> /dev/null".to_owned(),
        format!("fd 1 -> {}", log.display()),
        format!("fd 2 -> {}", log.display()),
        "oops".to_owned(),
        "GREETING=hello there".to_owned(),
        "MAINSTAY_MARK=here".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected:?} is missing");
    }
    assert!(!text.contains("fd 20"), "a descriptor was inherited");
    let variables: Vec<&str> =
        text.lines().filter_map(|line| line.split_once('=')).map(|pair| pair.0).collect();
    let known =
        ["GREETING", "HOME", "LOGNAME", "MAINSTAY_MARK", "OLDPWD", "PATH", "PWD", "SHLVL", "USER", "_"];
    assert!(variables.iter().all(|name| known.contains(name)), "more than was given: {variables:?}");
}

#[tokio::test]
async fn root_starts_programs_as_another_user_with_that_users_groups() {
    let user = OsUser::lookup("postgres")
        .unwrap()
        .expect("user postgres is missing: `make setup` installs postgresql");
    assert!(OsUser::current().unwrap().is_root(), "this test must run as root to become another user");
    let command = ToolCommand {
        user: Some(user.clone()),
        ..ToolCommand::new("id", [] as [&str; 0], Duration::from_secs(5))
    };
    let output = run_tool(command).await.unwrap().checked().unwrap();
    assert!(
        output.stdout.contains(&format!("uid={}(postgres) gid={}", user.uid, user.gid)),
        "{}",
        output.stdout
    );
    let groups = output.stdout.trim().rsplit("groups=").next().unwrap().split(',').count();
    assert_eq!(groups, user.groups.len(), "{} against {:?}", output.stdout, user.groups);
}

#[tokio::test]
async fn what_cannot_be_started_is_said_in_words() {
    let absent = spawn_detached(&Spawn::new("/no/such/program", [] as [&str; 0])).unwrap_err();
    assert_eq!(absent.to_string(), "cannot start /no/such/program: No such file or directory (os error 2)");
    let no_log = Spawn { log: Some("/no/such/log".into()), ..shell("true") };
    let no_log = spawn_detached(&no_log).unwrap_err();
    assert_eq!(
        no_log.to_string(),
        "cannot start /bin/sh: its log /no/such/log: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn adoption_needs_pid_and_start_time() {
    let child = start(&shell("exec sleep 1000"));
    let id = child.0.id();
    assert_eq!(ProcessId::of(id.pid), Some(id));
    let adopted = adopt(id).expect("it runs");
    assert!(adopted.is_alive());
    assert!(
        adopt(ProcessId { start_ticks: id.start_ticks + 1, ..id }).is_none(),
        "another process with its pid"
    );
    child.0.signal(Signal::KILL).unwrap();
    adopted.exited().await;
    child.0.exited().await;
    assert!(adopt(id).is_none(), "it is gone");
}

#[tokio::test]
async fn an_adopted_process_that_is_not_our_child_is_watched_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    // The shell starts a process in a session of its own and ends: the process becomes init's child.
    let script = format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' & sleep 0.1", file.display());
    run_tool(ToolCommand::new("sh", ["-c", &script], Duration::from_secs(5))).await.unwrap();
    until("the pid is written", || read(&file).ends_with('\n')).await;
    let pid = read(&file).trim().parse().unwrap();
    let adopted = Guard(adopt(ProcessId::of(pid).unwrap()).unwrap());
    assert_ne!(facts_of(pid).unwrap().parent, i32::try_from(std::process::id()).unwrap());
    let begin = Instant::now();
    adopted.0.signal(Signal::KILL).unwrap();
    assert_eq!(adopted.0.exited().await, Exit::Unknown);
    assert!(begin.elapsed() < Duration::from_millis(200), "took {:?}", begin.elapsed());
}

#[tokio::test]
async fn a_session_is_found_and_killed_with_its_leader_dead() {
    let child = start(&shell("sleep 1000 & sleep 1000 & wait"));
    until("both sleeps run", || session_of(child.0.id()).len() == 2).await;
    assert_eq!(children_of(child.0.id().pid).len(), 2);
    child.0.signal(Signal::KILL).unwrap();
    child.0.exited().await;
    assert_eq!(session_of(child.0.id()).len(), 2, "the sleeps outlive the shell");
    assert_eq!(child.0.signal_session(Signal::KILL), 2);
    until("the session is empty", || session_of(child.0.id()).is_empty()).await;
}

#[tokio::test]
async fn a_tool_reports_both_streams_and_its_exit_code() {
    let command = ToolCommand {
        stdin: b"ping".to_vec(),
        ..ToolCommand::new("sh", ["-c", "cat; echo no >&2; exit 3"], Duration::from_secs(5))
    };
    let output = run_tool(command).await.unwrap();
    assert_eq!(
        (output.exit, output.stdout.as_str(), output.stderr.as_str()),
        (Exit::Code(3), "ping", "no\n")
    );
    assert_eq!(output.checked().unwrap_err().to_string(), "sh ended with exit code 3: no");
}

#[tokio::test]
async fn a_flood_of_output_is_bounded_and_does_not_block_the_tool() {
    let command = ToolCommand {
        capture: 1000,
        ..ToolCommand::new("sh", ["-c", "seq 1 400000"], Duration::from_secs(20))
    };
    let output = run_tool(command).await.unwrap().checked().unwrap();
    assert!(output.stdout.starts_with("1\n2\n3\n") && output.stdout.ends_with("399999\n400000\n"));
    assert!(output.stdout.len() < 1100, "{}", output.stdout.len());
}

#[tokio::test]
async fn a_tool_that_leaves_something_behind_does_not_hold_its_caller() {
    let begin = Instant::now();
    let output = run_tool(ToolCommand::new("sh", ["-c", "sleep 3 & echo done"], Duration::from_secs(20)))
        .await
        .unwrap();
    assert_eq!(output.stdout, "done\n");
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "waited for the background process: {:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_tool_is_killed_with_all_it_started_at_its_deadline() {
    let script = "echo almost >&2; sleep 31.4159 & sleep 31.4159";
    let error =
        run_tool(ToolCommand::new("sh", ["-c", script], Duration::from_millis(200))).await.unwrap_err();
    assert!(matches!(error, ToolError::TimedOut { .. }), "{error}");
    assert_eq!(error.to_string(), "sh did not end within 200ms and was killed: almost");
    let ours = || processes_of(|facts| facts.command_line().iter().any(|part| part == "31.4159"));
    until("nothing is left", || ours().is_empty()).await;
}

#[tokio::test]
async fn a_tool_whose_caller_goes_away_is_killed() {
    let running = run_tool(ToolCommand::new("sleep", ["27.1828"], Duration::from_secs(60)));
    let ours = || processes_of(|facts| facts.command_line().iter().any(|part| part == "27.1828"));
    assert!(tokio::time::timeout(Duration::from_millis(300), running).await.is_err());
    until("nothing is left", || ours().is_empty()).await;
}

#[tokio::test]
async fn a_registry_finds_what_runs_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::open(directory.path()).unwrap();
    let spec = |key: &str| Spawn { mark: Some(registry.mark(key)), ..shell("exec sleep 1000") };
    let recorded = start(&spec("web-1"));
    let unrecorded = start(&spec("web-2"));
    let ended = start(&spec("web-3"));
    registry.record("web-1", recorded.0.id(), serde_json::json!({ "port": 8000 })).unwrap();
    registry.record("web-3", ended.0.id(), serde_json::Value::Null).unwrap();
    ended.0.signal(Signal::KILL).unwrap();
    ended.0.exited().await;

    let again = Registry::open(directory.path()).unwrap();
    let alive = |found: &Found| (found.key.clone(), found.process.as_ref().map(Process::id));
    let all: Vec<_> = again.load().unwrap().iter().map(alive).collect();
    assert_eq!(all, [("web-1".to_owned(), Some(recorded.0.id())), ("web-3".to_owned(), None)]);
    let found = again.find("web-2").unwrap().expect("found by its mark");
    assert_eq!(found.process.map(|process| process.id()), Some(unrecorded.0.id()));
    assert_eq!(again.load().unwrap().len(), 3, "and recorded now");
    again.forget("web-3").unwrap();
    again.forget("web-3").unwrap();
    assert!(again.find("web-3").unwrap().is_none());
}

#[tokio::test]
async fn starting_in_time_gives_the_same_process() {
    let child = Guard(spawn(shell("exec sleep 1000"), Duration::from_secs(5)).await.unwrap());
    assert_eq!(facts_of(child.0.id().pid).unwrap().session, child.0.id().pid);
}

#[tokio::test]
async fn zombies_that_nobody_reaps_are_reaped_after_a_while() {
    // Somebody who forgets a child; the kernel gives orphans to pid 1 of a container in the same way.
    let forgotten = i32::try_from(std::process::Command::new("true").spawn().unwrap().id()).unwrap();
    until("it is a zombie", || facts_of(forgotten).is_some_and(|facts| facts.is_dead())).await;
    let now = effects::clock::now();
    reap_strangers(now);
    reap_strangers(now + Duration::from_secs(4));
    assert!(facts_of(forgotten).is_some(), "its starter has 5 s to reap it");
    assert!(reap_strangers(now + Duration::from_secs(5)) >= 1);
    assert_eq!(facts_of(forgotten), None);
}
