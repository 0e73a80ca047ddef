use super::*;

const FILE: &str = "\
# A title
#
# A reason.

also in the lab
seed 7
3 nodes, 3 members, 1 must confirm
one fault at a time

at 8 s for 3482 ms: freeze the primary
at 9 s for 1 s: cut what a standby sends to n3
at 12250 ms: set max_connections to 200

transcript:
  n1: promotion

story:
  first
    second
";

#[test]
fn a_script_is_read_and_written_alike() {
    let file = parse(FILE).unwrap();
    assert_eq!(file.to_string(), FILE);
    assert_eq!(file.script.steps[1].fault, Fault::OneWay(Target::Standby, 2));
    assert_eq!(file.story, ["first", "  second"]);
}

#[test]
fn every_fault_is_read_as_it_is_written() {
    let target = Target::Node(1);
    let faults = [
        Fault::Power(target),
        Fault::Agent(Target::Primary),
        Fault::AgentStalls(target),
        Fault::Freeze(target),
        Fault::Isolate(target),
        Fault::Mute(target),
        Fault::OneWay(target, 4),
        Fault::Narrow(target),
        Fault::Slow,
        Fault::Postmaster(Target::Standby),
        Fault::Disk(target),
        Fault::LogGone(target),
        Fault::Wipe(target),
        Fault::Leaderless,
        Fault::Switchover,
        Fault::Force(target),
        Fault::Pause,
        Fault::Apply(50),
    ];
    for fault in faults {
        let lasts = if fault.lasts() { Duration::from_micros(5_000_001) } else { Duration::ZERO };
        let step = Step { at: Duration::from_millis(8001), lasts, fault };
        assert_eq!(parse(&step.to_string()).unwrap().script.steps, [step]);
    }
}

#[test]
fn an_error_names_the_line_the_reason_and_what_would_be_right() {
    let because = |text: &str| parse(text).unwrap_err().to_string();
    assert!(
        because("seed 1\n\nmelt n1")
            .starts_with("line 3: `melt n1` is no line of a script; a line is `# text`")
    );
    assert!(
        because("at 8 s: melt n1").starts_with("line 1: `melt n1` is no fault; there are `power off n1`, ")
    );
    assert_eq!(
        because("at 8 s for 1 s: freeze n9"),
        "line 1: `n9` is nobody; whom a fault hits is `the primary`, `a standby` or `n1` to `n5`"
    );
    assert!(because("at 8 s: freeze n1").contains("say how long: `at TIME for TIME: freeze n1`"));
    assert!(because("at 8 s for 1 s: switch over").contains("has no length"));
    assert!(because("at eight: switch over").contains("`eight` is no time; times are like `8 s`"));
    assert!(
        because("at 9 s: switch over\nat 8 s: switch over")
            .starts_with("line 2: it begins before the step above")
    );
    assert!(because("story:\nfirst").starts_with("line 2: an expected line begins with two spaces"));
    assert!(because("3 nodes, 4 members, 1 must confirm").contains("no more members than nodes"));
    assert!(because("seed many").contains("`many` is no number"));
}
