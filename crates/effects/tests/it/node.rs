//! Real disks that answer, are full, and hang.

use std::process::Command;
use std::time::{Duration, Instant};

use effects::node::{Disk, DiskWatch};
use effects::process::{ToolCommand, ToolError, run_tool};

/// A small ext4 in a file, mounted; thawed, unmounted and removed when dropped.
struct Volume {
    directory: tempfile::TempDir,
}

impl Volume {
    fn new() -> Self {
        let volume = Self { directory: tempfile::tempdir().unwrap() };
        let image = volume.directory.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        std::fs::create_dir(volume.path()).unwrap();
        run("mkfs.ext4", &["-q", image.to_str().unwrap()]);
        run("mount", &["-o", "loop", image.to_str().unwrap(), volume.path().to_str().unwrap()]);
        volume
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("mounted")
    }

    fn freeze(&self, flag: &str) {
        run("fsfreeze", &[flag, self.path().to_str().unwrap()]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Thawing what is not frozen fails, which is fine.
        let _ = Command::new("fsfreeze").arg("-u").arg(self.path()).output();
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    let status = status
        .unwrap_or_else(|_| panic!("{program} is missing: `make setup` installs util-linux and e2fsprogs"));
    assert!(status.success(), "{program} {arguments:?} failed: loop mounts need root");
}

#[tokio::test]
async fn a_disk_that_answers_tells_its_free_space() {
    let directory = tempfile::tempdir().unwrap();
    let watch = DiskWatch::new(directory.path());
    let begin = Instant::now();
    let Disk::Known { total_bytes, free_bytes, write_error: None, .. } =
        watch.look(Duration::from_secs(5)).await
    else {
        panic!("a healthy disk")
    };
    println!("asked in {:?}", begin.elapsed());
    assert!(free_bytes > 0 && free_bytes <= total_bytes);
}

#[tokio::test]
async fn a_full_or_read_only_disk_says_so() {
    let volume = Volume::new();
    let watch = DiskWatch::new(volume.path());
    let _ = run_tool(ToolCommand::new(
        "sh",
        ["-c", &format!("cat /dev/zero > {}/big", volume.path().display())],
        Duration::from_secs(20),
    ))
    .await
    .unwrap();
    let full = watch.look(Duration::from_secs(5)).await;
    assert!(matches!(full, Disk::Known { free_bytes: 0, .. }), "{full:?}");
    run("mount", &["-o", "remount,ro", volume.path().to_str().unwrap()]);
    let Disk::Known { write_error: Some(because), .. } = watch.look(Duration::from_secs(5)).await else {
        panic!("it takes no write")
    };
    assert_eq!(because, "Read-only file system");
}

#[tokio::test]
async fn a_hung_disk_is_unknown_since_the_first_question_and_answers_again_when_it_thaws() {
    let volume = Volume::new();
    let watch = DiskWatch::new(volume.path());
    assert!(matches!(watch.look(Duration::from_secs(5)).await, Disk::Known { .. }));
    volume.freeze("-f");
    let begin = Instant::now();
    let first = watch.look(Duration::from_millis(300)).await;
    let second = watch.look(Duration::from_millis(300)).await;
    println!("{first:?}");
    assert!(begin.elapsed() < Duration::from_secs(2), "asking a hung disk took {:?}", begin.elapsed());
    let (Disk::Unknown { since, because }, Disk::Unknown { since: again, .. }) = (&first, &second) else {
        panic!("{first:?} {second:?}")
    };
    assert_eq!(since, again);
    assert!(because.contains("the kill has no effect while it waits in the kernel (state D)"), "{because}");
    volume.freeze("-u");
    let begin = Instant::now();
    while !matches!(watch.look(Duration::from_secs(1)).await, Disk::Known { .. }) {
        assert!(begin.elapsed() < Duration::from_secs(5), "it answers again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_tool_stuck_in_the_kernel_is_abandoned_and_does_not_block_the_runtime() {
    let volume = Volume::new();
    volume.freeze("-f");
    let file = format!("of={}/x", volume.path().display());
    let begin = Instant::now();
    let error =
        run_tool(ToolCommand::new("dd", ["if=/dev/zero", &file, "count=1"], Duration::from_millis(200)))
            .await
            .unwrap_err();
    assert!(matches!(error, ToolError::Stuck { state: 'D', .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}
