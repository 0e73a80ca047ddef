//! Disks that fill up, hang, and lose what was not flushed.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{Data, Lab};

use crate::support::{
    Bench, STAND_IN, Traces, at, dial, eventually, inside, node, wait_for_answers, with_database,
};

/// A system whose nodes keep their databases on volumes of their own. The stand-in has none; that the file has one makes
/// the volumes.
fn with_volumes() -> (Bench, Lab, Traces) {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let (bench, options) = with_database(bench);
    let options = lab::Options { data_volume: Some(64 << 20), ..options };
    let lab = Lab::up(&bench.system, &bench.file, &options).unwrap();
    wait_for_answers(&lab);
    (bench, lab, before)
}

#[test]
fn a_full_volume_takes_nothing_more() {
    let (bench, lab, before) = with_volumes();
    let e1 = node("e1");
    let databases = lab.root(&e1).join("databases").display().to_string();
    let write = format!(
        "(head -c 100000 /dev/zero > {databases}/some && sync {databases}/some && echo done) 2>&1 || true"
    );
    assert_eq!(inside(&lab, "e1", "sh", &["-c", &write]), "done");
    inside(&lab, "e1", "rm", &[&format!("{databases}/some")]);
    lab.fill_volume(&e1).unwrap();
    let said = inside(&lab, "e1", "sh", &["-c", &write]);
    assert!(said.contains("No space left"), "{said}");
    // Only the volume: the node's own state lies elsewhere.
    inside(&lab, "e1", "sh", &["-c", &format!("head -c 100000 /dev/zero > {databases}/../some")]);
    lab.unfill_volume(&e1).unwrap();
    assert_eq!(inside(&lab, "e1", "sh", &["-c", &write]), "done");
    let witness = lab.fill_volume(&node("n1")).unwrap_err().to_string();
    assert!(witness.contains("no volume of its own"), "{witness}");
    bench.down(Data::Remove);
    assert_eq!(Traces::of(&bench), before);
}

#[test]
fn a_hung_disk_recovers_by_itself_when_its_maker_is_dead() {
    let (bench, lab, before) = with_volumes();
    let databases = lab.root(&node("e1")).join("databases").display().to_string();
    let mut maker = Command::new(STAND_IN);
    maker.args(["freeze-volume".as_ref(), bench.base().as_os_str()]);
    maker.args([bench.name().as_str(), "e1", "2500"]).stderr(Stdio::null());
    let began = Instant::now();
    assert!(!maker.status().unwrap().success(), "the maker should have aborted");
    let frozen = began.elapsed();
    let mut writer = lab
        .spawn_in_node(
            &node("e1"),
            Command::new("touch").arg(format!("{databases}/late")).stdin(Stdio::null()),
        )
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(writer.try_wait().unwrap(), None, "the write did not hang");
    assert!(dial(&lab, at(&lab, "e1", "fibre")).is_ok(), "only writers hang");
    assert!(writer.wait().unwrap().success());
    let lasted = began.elapsed();
    assert!(lasted > Duration::from_millis(2000) && lasted < frozen + Duration::from_secs(8), "{lasted:?}");
    bench.down(Data::Remove);
    assert_eq!(Traces::of(&bench), before);
}

#[test]
fn down_ends_a_hung_disk_with_its_writers() {
    let (bench, mut lab, before) = with_volumes();
    let e1 = node("e1");
    let databases = lab.root(&e1).join("databases").display().to_string();
    lab.freeze_volume(&e1, Duration::from_secs(120)).unwrap();
    let mut touch = Command::new("touch");
    let mut writer =
        lab.spawn_in_node(&e1, touch.arg(format!("{databases}/late")).stdin(Stdio::null())).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(writer.try_wait().unwrap(), None, "the write did not hang");
    let began = Instant::now();
    bench.down(Data::Remove);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    writer.wait().unwrap();
    assert_eq!(Traces::of(&bench), before);
}

#[test]
fn a_power_loss_loses_what_was_not_flushed_and_nothing_else() {
    let (bench, mut lab, before) = with_volumes();
    let e1 = node("e1");
    let databases = lab.root(&e1).join("databases").display().to_string();
    let write = format!("cd {databases} && echo safe > flushed && sync flushed . && echo lost > unflushed");
    inside(&lab, "e1", "sh", &["-c", &write]);
    let evidence = lab.lose_power(&e1).unwrap();
    assert!(evidence.what.contains("without a flush"), "{evidence}");
    lab.start_node(&e1).unwrap();
    eventually("it answers again", String::new, || dial(&lab, at(&lab, "e1", "fibre")).is_ok());
    assert_eq!(inside(&lab, "e1", "cat", &[&format!("{databases}/flushed")]), "safe");
    let left = inside(&lab, "e1", "sh", &["-c", &format!("cat {databases}/unflushed 2>/dev/null || true")]);
    assert_eq!(left, "", "what was never flushed has survived");
    bench.down(Data::Remove);
    assert_eq!(Traces::of(&bench), before);
}
