//! Runs of jobs as real processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use effects::job::{Begun, End, finish, log_name, remove_logs, run};
use effects::process::{Launch, Registry, processes_of};

fn script(directory: &Path, text: &str) -> (Launch, Registry) {
    let launch = Launch {
        key: "job.migrate.1".to_owned(),
        command: ["/bin/sh", "-c", text].map(str::to_owned).into(),
        env: BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())]),
        cwd: directory.join("jobs/migrate"),
        user: None,
        owner: None,
        log: directory.join("log").join(log_name("migrate", 1) + ".log"),
        memory: None,
        facts: BTreeMap::new(),
    };
    (launch, Registry::open(&directory.join("processes")).unwrap())
}

async fn ends(text: &str, limit: Duration) -> (End, String) {
    let directory = tempfile::tempdir().unwrap();
    let (launch, registry) = script(directory.path(), text);
    let end = run(launch.clone(), registry, limit).await;
    (end, fs::read_to_string(launch.log).unwrap_or_default())
}

#[tokio::test]
async fn a_run_ends_as_its_program_says() {
    let minute = Duration::from_secs(60);
    assert_eq!(ends("echo $COLOUR", minute).await, (End::Succeeded, "blue\n".to_owned()));
    let failed = |how: &str| End::Failed(how.to_owned());
    assert_eq!(
        ends("echo no >&2; exit 3", minute).await,
        (failed("ended with exit code 3"), "no\n".to_owned())
    );
    assert_eq!(ends("kill -9 $$", minute).await.0, failed("ended with signal 9 (SIGKILL)"));
    let directory = tempfile::tempdir().unwrap();
    let (mut launch, registry) = script(directory.path(), "");
    launch.command = vec!["/no/such/program".to_owned()];
    let End::Failed(because) = run(launch, registry, minute).await else { panic!("it ran") };
    assert!(because.starts_with("could not be started: cannot start /no/such/program"), "{because}");
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_ended_with_all_it_started() {
    let begin = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let (launch, registry) = script(directory.path(), "sleep 4711 & sleep 4711");
    let end = run(launch, registry, Duration::from_millis(300)).await;
    assert_eq!(end, End::Failed("did not end within 300ms and was ended".to_owned()));
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    let mark = directory.path().display().to_string();
    let left = processes_of(|facts| {
        !facts.is_dead()
            && facts
                .environment_variable(effects::process::MARK)
                .is_some_and(|value| value.to_string_lossy().starts_with(&mark))
    });
    assert_eq!(left, []);
}

#[tokio::test]
async fn a_restarted_agent_finds_a_run_and_sees_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let (launch, registry) = script(directory.path(), "read line < fifo; exit 0");
    fs::create_dir_all(&launch.cwd).unwrap();
    let made = std::process::Command::new("mkfifo").arg(launch.cwd.join("fifo")).status().unwrap();
    assert!(made.success());
    let started = effects::process::launch(launch.clone(), registry.clone()).await.unwrap();
    let id = started.process.id();
    let found = registry.load().unwrap().pop().unwrap();
    assert_eq!(found.key, "job.migrate.1");
    let process = found.process.unwrap();
    assert_eq!(process.id(), id);
    let limit = Duration::from_secs(60);
    let until = tokio::time::Instant::now() + limit;
    let end = finish(Begun { process, memory: None, bytes: None }, until, limit);
    let go_on = launch.cwd.join("fifo");
    std::thread::spawn(move || fs::write(go_on, "on\n").unwrap());
    // In this test both handles are of one process, and either of them may reap it: both words are right.
    let end = end.await;
    assert!(matches!(end, End::Succeeded | End::Unknown(_)), "{end:?}");
}

#[test]
fn old_logs_go_and_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let all = [
        "job@migrate.1.log",
        "job@migrate.2.log.1",
        "job@migrate.3.log",
        "job@other.1.log",
        "web.web-1@e1.log",
    ];
    for name in all {
        fs::write(directory.path().join(name), "").unwrap();
    }
    remove_logs(directory.path(), "migrate", 3).unwrap();
    let mut left: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["job@migrate.3.log", "job@other.1.log", "web.web-1@e1.log"]);
}
